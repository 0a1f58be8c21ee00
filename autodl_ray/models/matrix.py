"""Which model comes out in which format, as it was measured: read from a file that is made by exporting all of them.

The file is written by ``python -m tests.benchmarks.model_matrix --write``, and never by hand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MATRIX", "Cell", "read_matrix"]

MATRIX = Path(__file__).parent / "matrix.json"


@dataclass(frozen=True)
class Cell:
    """One model in one format.

    Attributes:
        made: Whether the export is made and answers like the network.
        how: Which way, or why not.
        max_difference: Largest difference of a probability against the network; None where none was measured.
    """

    made: bool
    how: str
    max_difference: float | None


def read_matrix() -> dict[str, dict[str, Cell]]:
    """Return model → format → cell."""
    document = json.loads(MATRIX.read_text(encoding="utf-8"))
    return {
        name: {
            form: Cell(bool(cell["made"]), str(cell["how"]), cell.get("max_difference"))
            for form, cell in row["cells"].items()
        }
        for name, row in document["models"].items()
    }
