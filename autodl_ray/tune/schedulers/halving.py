"""Successive halving as a pure function: which trials go on past a rung.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (the stopping variant).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Halving"]


@dataclass(frozen=True)
class Halving:
    """The rule: at rung ``grace_period * reduction_factor**k`` one trial in ``reduction_factor`` goes on.

    Attributes:
        grace_period: Epochs before a trial may be stopped: the first rung.
        reduction_factor: Of the trials that reached a rung, the best ``n // reduction_factor`` go on (at least one).
        max_epochs: Epochs of a whole trial; there is no rung at or past it.
        mode: Whether a small or a large value is good.
    """

    grace_period: int
    reduction_factor: int
    max_epochs: int
    mode: Literal["min", "max"]

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which it is decided, ascending."""
        found, rung = [], self.grace_period
        while rung < self.max_epochs:
            found.append(rung)
            rung *= self.reduction_factor
        return tuple(found)

    def rung_of(self, epoch: int, decided: Sequence[int]) -> int | None:
        """Return the highest rung that ``epoch`` has reached, unless it or a higher one was decided already.

        A trial that went on from a checkpoint may report the epoch after a rung first; it is decided then.
        """
        reached = [r for r in self.rungs if r <= epoch]
        if not reached or any(d >= reached[-1] for d in decided):
            return None
        return reached[-1]

    def goes_on(self, value: float, others: Mapping[str, float]) -> bool:
        """Decide for one trial.

        Args:
            value: Its best value so far.
            others: The values with which other trials were decided at the same rung; ties go on.
        """
        if math.isnan(value):
            return False
        sign = 1.0 if self.mode == "max" else -1.0
        ranked = sorted((sign * v for v in [*others.values(), value] if not math.isnan(v)), reverse=True)
        kept = max(1, len(ranked) // self.reduction_factor)
        return sign * value >= ranked[kept - 1]
