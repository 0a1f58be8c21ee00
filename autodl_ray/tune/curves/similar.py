"""Which earlier sweeps say something of this one, how much, and what their settings are here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from autodl_ray.spec.domains import Choice, Domain, Int
from autodl_ray.tune.contracts import EarlierSweep, SearchContext
from autodl_ray.tune.space import contains, is_active, ordered, value_at

__all__ = ["most_similar", "setting_here", "similarity"]

_FEWEST_TRIALS = 3


def similarity(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return how alike two data sets are, 0 to 1: 0.61 where one fact differs by 1, which is a factor of 10.

    Only facts that both have are compared; without one the answer is 1: nothing speaks against it.
    """
    squared = sum((one[name] - other[name]) ** 2 for name in one if name in other)
    return math.exp(-0.5 * squared)


def most_similar(context: SearchContext, most: int) -> list[EarlierSweep]:
    """Return the earlier sweeps over fields that are searched now, the most similar data first."""
    known = [sweep for sweep in context.earlier if _says_something(sweep, context)]
    return sorted(known, key=lambda sweep: -similarity(context.facts, sweep.facts))[:most]


def setting_here(context: SearchContext, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of another sweep as settings of this one.

    Fields that are not searched here are left out, those that were not searched there have the baseline's value (or
    the middle of their range), and numbers outside a range are moved to its end.
    """
    made: dict[str, Any] = {}
    for name in ordered(context.space):
        domain = context.space[name]
        if is_active(domain, made):
            made[name] = _value_here(domain, params.get(name), context.baseline.get(name))
    return made


def _says_something(sweep: EarlierSweep, context: SearchContext) -> bool:
    told = [trial for trial in sweep.trials if trial.value is not None and math.isfinite(trial.value)]
    return len(told) >= _FEWEST_TRIALS and any(name in context.space for trial in told for name in trial.params)


def _value_here(domain: Domain, *wanted: Any) -> Any:
    for value in wanted:
        if contains(domain, value):
            return value
        if not isinstance(domain, Choice) and isinstance(value, int | float) and not isinstance(value, bool):
            inside = min(domain.high, max(domain.low, value))
            return round(inside) if isinstance(domain, Int) else float(inside)
    return value_at(domain, 0.5)
