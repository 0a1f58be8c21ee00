"""Sources that interfere with the worker that reads them: for tests of what a group survives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from tests.train.sources import ArrayBatch, ArraySource

__all__ = ["Trouble", "Troubled", "troubled"]


@dataclass(frozen=True)
class Trouble:
    """What happens, once, to ``rank`` before the step ``step`` of the epoch ``epoch`` (0-based)."""

    what: Literal["kill", "term", "raise", "memory"]
    epoch: int
    step: int
    rank: int = 1

    def happen(self, marks: Path) -> None:
        mark = marks / f"{self.what}-{self.epoch}-{self.step}"
        if mark.exists():
            return
        mark.touch()
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.what == "term":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.0)  # the process's main thread takes the signal when Ray next asks it something
        elif self.what == "memory":
            raise MemoryError("not enough memory")
        else:
            raise ZeroDivisionError("of the user's")


@dataclass(frozen=True)
class Troubled(ArraySource):
    """An :class:`ArraySource` with troubles, whose steps take ``step_s`` at least."""

    marks: Path = Path()
    troubles: tuple[Trouble, ...] = ()
    step_s: float = 0.0

    def train_epochs(self, *, start: int, rank: int = 0, **options: Any) -> Iterator[Iterator[ArrayBatch]]:
        skip = options.get("skip_batches", 0)
        for epoch, batches in enumerate(super().train_epochs(start=start, rank=rank, **options), start):
            yield self._troubled(batches, epoch, rank, skip if epoch == start else 0)

    def _troubled(self, batches: Iterator[ArrayBatch], epoch: int, rank: int, skip: int) -> Iterator[ArrayBatch]:
        for step, batch in enumerate(batches, skip):
            for trouble in self.troubles:
                if (trouble.epoch, trouble.step, trouble.rank) == (epoch, step, rank):
                    trouble.happen(self.marks)
            time.sleep(self.step_s)
            yield batch


def troubled(source: ArraySource, marks: Path, *troubles: Trouble, step_s: float = 0.0) -> Troubled:
    """Return the source with troubles."""
    marks.mkdir(parents=True, exist_ok=True)
    values = {field.name: getattr(source, field.name) for field in fields(source)}
    return Troubled(**values, marks=marks, troubles=troubles, step_s=step_s)
