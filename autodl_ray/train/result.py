"""What a training run did, and the files beside its weights that others read."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from autodl_ray.artifacts import write_atomic

__all__ = ["CURVES", "PROGRESS", "FitResult", "ProgressFile", "rank_of", "write_curves"]

CURVES, PROGRESS = "curves.json", "progress.json"

Row = dict[str, Any]


@dataclass(frozen=True)
class FitResult:
    """The outcome of :func:`autodl_ray.train.loop.fit`.

    Attributes:
        status: ``finished`` (all planned steps were done) or ``stopped`` (somebody asked).
        epochs: Epochs that were validated; the last one may be a part.
        best_epoch: 1-based; 0 when none was validated.
        metrics: The row of the best epoch; empty when none was validated.
        history: The row of every epoch.
        precision: ``32`` or ``bf16``, as trained.
        seconds: Of this call and the earlier ones on the same folder.
        weights_file: The best weights in the training's folder; None when no epoch was validated.
        notes: What a person should know, e.g. that a damaged checkpoint was passed over.
    """

    status: Literal["finished", "stopped"]
    epochs: int
    best_epoch: int
    metrics: Row
    history: tuple[Row, ...]
    precision: str
    seconds: float
    weights_file: str | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> Row:
        """Return plain data that :meth:`from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Row) -> FitResult:
        """Read what :meth:`to_json` gave."""
        return cls(**{**document, "history": tuple(document["history"]), "notes": tuple(document["notes"])})


def rank_of(row: Row, metric: str) -> tuple[float, float]:
    """Return what orders epochs, larger is better: the metric, then the lower loss."""
    return (-row["loss"], 0.0) if metric == "loss" else (row[metric], -row["loss"])


def write_curves(folder: Path, history: list[Row]) -> None:
    """Write the rows of all epochs for the report."""
    write_atomic(folder / CURVES, json.dumps(history, indent=1) + "\n", durable=False)


@dataclass
class ProgressFile:
    """``progress.json``, rewritten about once a second for the bar on the driver, first after a quarter of it."""

    folder: Path
    every_s: float = 1.0
    _last: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._last = time.monotonic() - 0.75 * self.every_s

    @property
    def is_due(self) -> bool:
        """Whether the last writing was a second ago."""
        return time.monotonic() - self._last >= self.every_s

    @property
    def is_due_after_epoch(self) -> bool:
        """Whether the last writing was a quarter of a second ago: an epoch is worth being shown sooner."""
        return time.monotonic() - self._last >= 0.25 * self.every_s

    def update(self, facts: Row, *, force: bool = False) -> None:
        """Write the facts unless that was done less than a second ago."""
        if not force and not self.is_due:
            return
        self._last = time.monotonic()
        # Not write_atomic: this file is worth no fsync.
        temporary = self.folder / f".{PROGRESS}.tmp"
        temporary.write_text(json.dumps(facts))
        temporary.replace(self.folder / PROGRESS)
