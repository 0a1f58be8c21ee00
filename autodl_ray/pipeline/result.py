"""What a run delivers, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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
        judged: What was scored: ``trained``: the network while it was trained; ``exported`` or ``exported int8``: the
            file that was made of it, on the whole validation split.
    """

    source: str
    accuracy: float
    macro_f1: float
    epochs: float
    seconds: float
    status: str
    params: dict[str, Any]
    judged: str = "trained"

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
        facts: What was found beside: ``repeat`` (the same settings with other seeds) and ``limits`` (what the files of
            each model take, and whether the delivered one keeps ``tune.limits``).
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
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def missed_limits(self) -> str | None:
        """Why the delivered model does not keep ``tune.limits``; None where it does, or where there are none."""
        limits = self.facts.get("limits")
        return None if limits is None or limits["met"] else str(limits["line"])

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
            **{name: self.facts[name] for name in ("repeat", "limits", "screening") if name in self.facts},
        }
