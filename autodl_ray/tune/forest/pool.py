"""Candidates for the next trial: draws from the ranges, and changes of the best trials."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autodl_ray.seeding import rng_for
from autodl_ray.spec.domains import Choice, Domain, Float, Int
from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.space import contains, draw, fingerprint, is_active, ordered, value_at

__all__ = ["candidates", "changed"]

_DRAWN = 300
_CHANGED = 150
_PARENTS = 5
_SHARE_CHANGED = 0.4
_STEPS = (0.05, 0.1, 0.25)


def candidates(context: SearchContext, number: int, history: Sequence[Observed]) -> list[dict[str, Any]]:
    """Return different settings that were not tried yet, in a fixed order; [] when no draw is new."""
    rng = rng_for(context.seed, "forest", "pool", number)
    found = [draw(context.space, rng) for _ in range(_DRAWN)]
    parents = _best(context, history)
    if parents:
        found += [changed(context.space, parents[int(rng.integers(len(parents)))].params, rng) for _ in range(_CHANGED)]
    new = {fingerprint(params): params for params in found}
    tried = {fingerprint(h.params) for h in history}
    return [params for text, params in new.items() if text not in tried]


def changed(space: Mapping[str, Domain], params: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Change some of the settings: numbers by a step, choices to any value; what becomes active is drawn."""
    step = float(rng.choice(_STEPS))
    made: dict[str, Any] = {}
    for name in ordered(space):
        domain = space[name]
        if not is_active(domain, made):
            continue
        known = name in params and contains(domain, params[name])
        if known and rng.uniform() >= _SHARE_CHANGED:
            made[name] = params[name]
        elif known and not isinstance(domain, Choice):
            made[name] = value_at(domain, _unit(domain, params[name]) + step * float(rng.normal()))
        else:
            made[name] = value_at(domain, float(rng.uniform()))
    return made


def _best(context: SearchContext, history: Sequence[Observed]) -> list[Observed]:
    sign = 1.0 if context.mode == "max" else -1.0
    known = ((sign * h.value, -h.number, h) for h in history if h.value is not None and math.isfinite(h.value))
    return [h for *_, h in heapq.nlargest(_PARENTS, known)]


def _unit(domain: Float | Int, value: float) -> float:
    """The inverse of :func:`autodl_ray.tune.space.value_at`."""
    half = 0.5 if isinstance(domain, Int) else 0.0
    low, high = domain.low - half, domain.high + half
    if domain.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)
