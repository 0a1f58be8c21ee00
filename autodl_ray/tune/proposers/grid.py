"""The grid: every choice with evenly spaced numbers, coarse before fine, each part of it spread over the whole."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autodl_ray.spec.sections import Choice, Domain, Float, Int
from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.proposers.plain import settings_at
from autodl_ray.tune.proposers.walk import Walk
from autodl_ray.tune.space import all_settings, fingerprint, num_settings, num_values, ordered, value_at

__all__ = ["GridProposer", "levels"]

_MISSES = 200
_MOST_BITS = 20


class GridProposer:
    """Walks grids that grow finer: each number has 3 levels, then 5, 9, 17 …; choices have all their values.

    A finer grid holds the coarser one, so more trials of a finished sweep go on with the same grid. Whole numbers have
    at most as many levels as values, and a space without float ranges ends when each of its settings was named. The
    order within a grid is that of a low-discrepancy sequence, so that the first trials of a grid that is larger than
    the sweep lie evenly in it: the additive recurrence of M. Roberts, The unreasonable effectiveness of quasirandom
    sequences (2018). There is nothing random: every seed walks the same way.
    """

    def __init__(self, context: SearchContext) -> None:
        self._walk = Walk(context.space, _refined(context.space))

    def propose(self, number: int, attempt: int, history: Sequence[Observed]) -> dict[str, Any] | None:
        """Return the first settings of the walk that are not known; None: it has come to its end.

        Args:
            number: Not looked at: the history says how far the walk is.
            attempt: How many unknown settings are passed over.
            history: The trials so far.
        """
        return self._walk.next(attempt, history)


def levels(domain: Domain, bits: int) -> list[Any]:
    """Return the values of a range in a grid of 2**bits + 1 levels, ascending (all values of a choice).

    Example:
        >>> levels(Float(low=0.001, high=0.1, log=True), 1)
        [0.001, 0.01, 0.1]
    """
    if isinstance(domain, Choice):
        return [value_at(domain, (i + 0.5) / num_values(domain)) for i in range(int(num_values(domain)))]
    steps = 2**bits
    if isinstance(domain, Int) and num_values(domain) <= steps + 1:
        return list(range(domain.low, domain.high + 1))
    found = [_between(domain, i / steps) for i in range(steps + 1)]
    return [value for value, _ in itertools.groupby(found)]


def _between(domain: Float | Int, unit: float) -> Any:
    """Return the value at ``unit`` of the range, its ends being 0 and 1; short decimals where that is exact."""
    if domain.log:
        value = domain.low * (domain.high / domain.low) ** unit
    else:
        value = domain.low + unit * (domain.high - domain.low)
    if isinstance(domain, Int):
        return min(domain.high, max(domain.low, math.floor(value + 0.5)))
    return min(domain.high, max(domain.low, float(f"{value:.12g}")))


def _refined(space: Mapping[str, Domain]) -> Iterator[dict[str, Any]]:
    """Walk the grids from coarse to fine, each setting once."""
    seen: set[str] = set()
    for bits in range(1, _MOST_BITS):
        grid = {n: Choice(values=tuple(levels(d, bits)), when=d.when) for n, d in space.items()}
        for params in _spread(grid):
            text = fingerprint(params)
            if text not in seen:
                seen.add(text)
                yield params
        if num_settings(grid) == num_settings(space):
            return


def _spread(grid: Mapping[str, Domain]) -> Iterator[dict[str, Any]]:
    """Walk a grid in the order of a low-discrepancy sequence; what that misses for long comes at the end."""
    names = ordered(grid)
    steps = _steps(len(names))
    seen: set[str] = set()
    size, misses = num_settings(grid), 0
    for index in itertools.count():
        if len(seen) >= size or misses >= _MISSES:
            break
        params = settings_at(grid, {n: (0.5 + index * s) % 1.0 for n, s in zip(names, steps, strict=True)})
        text = fingerprint(params)
        misses = misses + 1 if text in seen else 0
        if misses == 0:
            seen.add(text)
            yield params
    if len(seen) < size:
        yield from (params for params in all_settings(grid) if fingerprint(params) not in seen)


def _steps(count: int) -> list[float]:
    """Return the steps of the sequence: powers of the root of x**(count + 1) = x + 1."""
    root = 1.5
    for _ in range(60):
        root = (1 + root) ** (1 / (count + 1))
    return [root ** -(i + 1) for i in range(count)]
