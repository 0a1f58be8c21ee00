"""Asynchronous successive halving as a scheduler: stopping at the rungs, or pausing there until a place is earned.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autodl_ray.tune.contracts import GO_ON, Observed, SearchContext, Verdict
from autodl_ray.tune.schedulers.halving import Halving

__all__ = ["AshaPromotion", "AshaStopping"]


class _Rungs:
    """Which trials reached which rung, with which value."""

    def __init__(self, context: SearchContext) -> None:
        self.rule = Halving(context.grace_period, context.reduction_factor, context.epochs, context.mode)
        self.values: dict[int, dict[int, float]] = {}
        self._decided: dict[int, list[int]] = {}

    def reach(self, trial: Observed) -> int | None:
        """Write down that a trial has reached a rung; None: it has reached none that it had not reached before."""
        decided = self._decided.setdefault(trial.number, [])
        rung = self.rule.rung_of(trial.epochs, decided)
        if rung is not None:
            decided.append(rung)
            self.values.setdefault(rung, {})[trial.number] = math.nan if trial.value is None else trial.value
        return rung


class AshaStopping:
    """Stops a trial at a rung unless it is in the best 1/reduction_factor of those that were there before it."""

    def __init__(self, context: SearchContext) -> None:
        self._rungs = _Rungs(context)

    @property
    def looks(self) -> tuple[int, ...]:
        """The rungs."""
        return self._rungs.rule.rungs

    def report(self, trial: Observed, history: Sequence[Observed]) -> Verdict:
        """Decide at a rung, by the best value so far."""
        rung = self._rungs.reach(trial)
        if rung is None:
            return GO_ON
        values = self._rungs.values[rung]
        others = {str(n): v for n, v in values.items() if n != trial.number}
        if self._rungs.rule.goes_on(values[trial.number], others):
            return GO_ON
        return Verdict("stop", f"not in the best 1 in {self._rungs.rule.reduction_factor} of {len(values)} there")

    def thaw(self, history: Sequence[Observed], candidate: Callable[[], Mapping[str, Any] | None]) -> int | None:
        """None: nothing is ever paused."""
        return None


class AshaPromotion:
    """Pauses every trial at a rung; the best 1 in ``reduction_factor`` of a rung go on when a place is free.

    The highest rung comes first. When no new trial is left to begin, the best of a rung goes on however few it has.
    """

    def __init__(self, context: SearchContext) -> None:
        self._rungs = _Rungs(context)
        self._sign = 1.0 if context.mode == "max" else -1.0

    @property
    def looks(self) -> tuple[int, ...]:
        """The rungs."""
        return self._rungs.rule.rungs

    def report(self, trial: Observed, history: Sequence[Observed]) -> Verdict:
        """Pause at a rung."""
        rung = self._rungs.reach(trial)
        return GO_ON if rung is None else Verdict("pause", f"at the rung of epoch {rung}")

    def thaw(self, history: Sequence[Observed], candidate: Callable[[], Mapping[str, Any] | None]) -> int | None:
        """Return the best paused trial of the highest rung that has earned it."""
        earned = self._earned(history, least=0)
        return self._earned(history, least=1) if earned is None and candidate() is None else earned

    def _earned(self, history: Sequence[Observed], *, least: int) -> int | None:
        promoted: set[int] = set()  # those that were seen at a higher rung
        for rung in sorted(self._rungs.values, reverse=True):
            values = self._rungs.values[rung]
            ranked = sorted((-self._sign * v, n) for n, v in values.items() if not math.isnan(v))
            for _, number in ranked[: max(least, len(ranked) // self._rungs.rule.reduction_factor)]:
                if number not in promoted and history[number].status == "paused":
                    return number
            promoted |= values.keys()
        return None
