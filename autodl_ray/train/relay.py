"""What a training group leaves in its folder for the driver: rows of epochs, each told once, and what there is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodl_ray.train.kept import BEST, INDEX
from autodl_ray.train.result import CURVES, FitResult
from autodl_ray.train.worker import REPORTS

__all__ = ["Relay", "Report", "curves", "so_far"]

Report = Callable[[dict[str, Any]], None]


@dataclass
class Relay:
    """Passes the rows of epochs on that rank 0 wrote, each once, whatever became of the group that wrote it.

    Attributes:
        folder: Of the training.
        report: Takes a row.
        last: The last epoch that was told.
        restarts: How often workers were lost; later rows have it.
    """

    folder: Path
    report: Report
    last: int
    restarts: int = 0
    _read: int = 0

    def pass_on(self) -> None:
        """Report the rows that were written since the last call."""
        path = self.folder / REPORTS
        text = path.read_text() if path.exists() else ""
        rows = text[: text.rfind("\n") + 1].splitlines()
        fresh, self._read = rows[self._read :], max(self._read, len(rows))
        for row in fresh:
            self._tell(json.loads(row))

    def catch_up(self, history: Iterable[dict[str, Any]]) -> None:
        """Report epochs that were saved, but whose row was not written before the group ended."""
        self.pass_on()
        for row in history:
            self._tell(row)

    def begin_again(self, restarts: int) -> None:
        """Expect the rows of another group; half a row of the one before is worth nothing."""
        (self.folder / REPORTS).unlink(missing_ok=True)
        self._read, self.restarts = 0, restarts

    def _tell(self, row: dict[str, Any]) -> None:
        if row["epoch"] <= self.last:
            return
        self.last = row["epoch"]
        self.report({**row, "restarts": self.restarts} if self.restarts else row)


def curves(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the epochs that were saved."""
    try:
        rows: list[dict[str, Any]] = json.loads((folder / CURVES).read_text())
        return rows
    except (OSError, ValueError):
        return []


def so_far(folder: Path, notes: Iterable[str]) -> FitResult:
    """Return what there is of a training that was to stop while no group of it ran."""
    history = curves(folder)
    try:
        best = int(json.loads((folder / INDEX).read_text())[0]["epoch"])
    except (OSError, ValueError, LookupError):
        best = 0
    best = best if best <= len(history) else 0
    return FitResult(
        status="stopped",
        epochs=len(history),
        best_epoch=best,
        metrics=dict(history[best - 1]) if best else {},
        history=tuple(history),
        precision=str(history[-1].get("precision", "32")) if history else "32",
        seconds=sum(float(row.get("epoch_s", 0.0)) for row in history),
        weights_file=BEST if best else None,
        notes=tuple(notes),
    )
