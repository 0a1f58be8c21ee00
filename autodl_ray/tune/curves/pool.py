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
from autodl_ray.tune.curves.surface import Array
from autodl_ray.tune.space import Encoding, contains, draw, is_active, ordered, value_at

__all__ = ["Pool", "changed"]

_BLOCK = 16
_DRAWN = 400
_CHANGED = 100
_PARENTS = 5
_SHARE_CHANGED = 0.4
_STEPS = (0.05, 0.1, 0.25)


class Pool:
    """Makes the candidates of a trial; draws serve a block of trials, as making and encoding them takes time."""

    def __init__(self, context: SearchContext, encoding: Encoding) -> None:
        self._context = context
        self._encoding = encoding
        self._block = -1
        self._drawn: list[dict[str, Any]] = []
        self._points: Array = np.zeros((0, len(encoding.names)))

    def candidates(self, number: int, history: Sequence[Observed], tried: Array) -> tuple[list[dict[str, Any]], Array]:
        """Return different settings that were not tried yet, in a fixed order, and their points.

        Args:
            number: Of the trial.
            history: The trials so far; the best are changed.
            tried: (N, D) float64, the points of the history.
        """
        self._draw_block(number // _BLOCK)
        rng = rng_for(self._context.seed, "forest", "pool", number)
        parents = _best(self._context, history)
        count = _CHANGED if parents else 0
        chosen = (parents[int(rng.integers(len(parents)))] for _ in range(count))
        new = [changed(self._context.space, parent.params, rng) for parent in chosen]
        settings = [*self._drawn, *new]
        points = np.concatenate([self._points, self._encoding.encode_all(new)])
        seen = {row.tobytes() for row in tried}
        rows = {text: i for i, row in reversed(list(enumerate(points))) if (text := row.tobytes()) not in seen}
        kept = sorted(rows.values())
        return [settings[i] for i in kept], points[kept]

    def _draw_block(self, block: int) -> None:
        if block == self._block:
            return
        rng = rng_for(self._context.seed, "forest", "block", block)
        self._drawn = [draw(self._context.space, rng) for _ in range(_DRAWN)]
        self._points = self._encoding.encode_all(self._drawn)
        self._block = block


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
