"""The targets as arrays: one row a setting, values with mean 0 and spread 1 where what is far too bad is drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autodl_ray.tune.proposers.bayes.targets import Target
from autodl_ray.tune.proposers.cube import Cube

__all__ = ["Data", "drawn_in"]

Array = NDArray[np.float64]

_FIRST = 10
_FAR = 10.0


@dataclass(frozen=True)
class Data:
    """What the process is fitted to.

    Attributes:
        rows: (N, F) coordinates of the settings.
        points: (N, D) the same encoded.
        values: (N,) mean 0, deviation 1, higher is better.
        variances: (N,) of what was estimated, in the same units.
    """

    rows: Array
    points: Array
    values: Array
    variances: Array

    @classmethod
    def of(cls, targets: Sequence[Target], cube: Cube) -> Data:
        """Make the arrays; settings with the same point (defaults outside their ranges are moved) become one."""
        rows = np.array([cube.place(t.params) for t in targets])
        points = cube.encode(rows)
        raw = drawn_in(np.array([t.value for t in targets]))
        scale = max(float(raw.std()), 1e-12)
        values = (raw - raw.mean()) / scale
        variances = (np.array([t.spread for t in targets]) / scale) ** 2
        same: dict[bytes, list[int]] = {}
        for i, point in enumerate(points):
            same.setdefault(point.tobytes(), []).append(i)
        first = [found[0] for found in same.values()]
        means = np.array([values[found].mean() for found in same.values()])
        least = np.array([variances[found].min() for found in same.values()])
        return cls(rows[first], points[first], means, least)


def drawn_in(values: Array) -> Array:
    """Draw in what is far worse than the first values were: beyond ten times their spread by its logarithm.

    A diverged loss is thousands of times worse than all others; how much worse says nothing about the good end, and a
    Gaussian process that has to follow it sees nothing else. The measure is that of the first ten, which lie all over
    the ranges: the spread of all of them shrinks as a search closes in, and would bend a smooth function more and more.

    Args:
        values: (N,) in the order of the trials, higher is better.
    """
    first = values[:_FIRST]
    middle = float(np.median(first))
    spread = max(float(np.quantile(first, 0.75)) - middle, 1e-12)
    far = (middle - values) / spread
    return np.where(far > _FAR, middle - spread * (_FAR + np.log1p(np.maximum(far - _FAR, 0.0))), values)
