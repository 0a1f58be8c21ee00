"""Where a training is, and what is measured in an epoch of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Counts", "EpochStats"]


@dataclass
class Counts:
    """Where the training is; all of it goes into the checkpoint."""

    step: int = 0  # steps done
    position: float = 0.0  # of the schedule, in [0, 1]
    epoch: int = 0  # whole epochs done
    in_epoch: int = 0  # steps done of the next one
    best: tuple[float, float] | None = None
    best_epoch: int = 0
    seconds: float = 0.0
    done: bool = False


@dataclass
class EpochStats:
    """What is measured during an epoch."""

    loss: float = 0.0
    images: int = 0
    wait_s: float = 0.0
    before_s: float = 0.0  # of the same epoch, in earlier processes
    started: float = field(default_factory=time.perf_counter)

    def to_json(self) -> dict[str, float]:
        """Return what a checkpoint inside the epoch keeps, for :meth:`resumed`."""
        return {"loss": self.loss, "images": self.images, "wait_s": self.wait_s, "before_s": self._seconds()}

    @classmethod
    def resumed(cls, kept: dict[str, Any]) -> EpochStats:
        """Go on with an epoch that was begun."""
        return cls(kept["loss"], int(kept["images"]), kept["wait_s"], kept["before_s"])

    def _seconds(self) -> float:
        return self.before_s + time.perf_counter() - self.started

    def row(self) -> dict[str, float]:
        """Return what is reported of the epoch."""
        seconds = max(self._seconds(), 1e-9)
        return {
            "train_loss": self.loss / max(self.images, 1),
            "images_per_s": self.images / seconds,
            "data_wait": self.wait_s / seconds,
            "epoch_s": seconds,
        }
