"""What a run delivers, for people and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autodl_ray.artifacts import Artifact

__all__ = ["LeaderboardRow", "RunResult"]


@dataclass(frozen=True)
class LeaderboardRow:
    """One model that was tried, scored on the validation split.

    Attributes:
        source: ``quick``, ``sweep t0003`` or ``train``.
        accuracy: Validation accuracy of its best checkpoint.
        macro_f1: Validation macro-F1 of that checkpoint.
        epochs: Epochs it was trained.
        seconds: Wall-clock it took.
        status: How it ended.
        params: What was particular to it.
    """

    source: str
    accuracy: float
    macro_f1: float
    epochs: float
    seconds: float
    status: str
    params: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class RunResult:
    """The end of a run.

    Attributes:
        name: Of the run.
        folder: Working folder of the run.
        dataset_id: Version of the data set.
        bundle: What is served.
        report: What was measured on the sealed test split; None when there was no time for it.
        leaderboard: Every model that was tried, best first.
        winner: Source of the model in the bundle.
        seconds: Wall-clock of all attempts.
        interrupted: Whether the user stopped it early.
        repeated: Whether the run was done already and nothing was done again.
    """

    name: str
    folder: Path
    dataset_id: str
    bundle: Artifact
    report: Artifact
    leaderboard: tuple[LeaderboardRow, ...]
    winner: str
    seconds: float
    interrupted: bool = False
    repeated: bool = False

    @property
    def int8(self) -> str:
        """What became of INT8, in one line."""
        record = json.loads(self.bundle.file("bundle.json").read_text())["int8"] or {}
        kept = "delivered" if record.get("kept") else "left out"
        return f"{kept}: {record.get('reason', 'not tried')}"

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "run": self.name,
            "status": "interrupted" if self.interrupted else "done",
            "repeated": self.repeated,
            "seconds": round(self.seconds, 1),
            "dataset": self.dataset_id,
            "winner": self.winner,
            "bundle": str(self.bundle.path),
            "report": str(self.report.path / "report.html"),
            "model": self.bundle.meta["model"],
            "int8": self.int8,
            "test": self.report.meta,
            "leaderboard": [row.to_json() for row in self.leaderboard],
        }
