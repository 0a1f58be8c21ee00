"""The wall-clock budget of a run, minutes of earlier attempts included."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

__all__ = ["Budget"]


@dataclass(frozen=True)
class Budget:
    """What is left of the run's wall-clock time.

    Attributes:
        total_s: Seconds the whole run may take.
        spent_before_s: Seconds that earlier attempts of the same run took.
        started: Unix time at which this attempt began.
    """

    total_s: float
    spent_before_s: float = 0.0
    started: float = field(default_factory=time.time)

    @property
    def deadline(self) -> float:
        """Unix time at which everything has to be done."""
        return self.started + max(0.0, self.total_s - self.spent_before_s)

    def spent_s(self) -> float:
        """Seconds spent so far, earlier attempts included."""
        return self.spent_before_s + (time.time() - self.started)

    def left_s(self) -> float:
        """Seconds left; 0.0 when the budget is used up."""
        return max(0.0, self.deadline - time.time())
