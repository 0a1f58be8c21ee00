"""From good candidates to the best near them: the numbers of a setting are moved while what is expected grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodl_ray.spec.domains import Choice, Domain, Float, Int
from autodl_ray.tune.curves.surface import Array
from autodl_ray.tune.space import Encoding, contains

__all__ = ["STARTS", "climbed"]

STARTS = 6
"""From how many candidates a climb should start."""
_AROUND = 16
_STEPS = (0.3, 0.2, 0.13, 0.09, 0.06, 0.04, 0.025, 0.015)
_SHARE_MOVED = 0.4


def climbed(
    settings: Sequence[Mapping[str, Any]],
    points: Array,
    gain: Callable[[Array], Array],
    *,
    space: Mapping[str, Domain],
    encoding: Encoding,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return the setting at the highest top that is reached from some; choices stay as they are.

    Random steps shrink from 0.3 to 0.015 of a range and are cut off at its ends, so that an end is often tried: where
    the optimum lies outside of a range, it is the best that there is.

    Args:
        settings: Where to start, at least one.
        points: (N, D) float64, the same encoded.
        gain: Returns what is to be maximised for (M, D) points, (M,) float64.
        space: The ranges, by field.
        encoding: Of the points.
        rng: For the steps.
    """
    tops, height = points.copy(), gain(points)
    moved = _movable(settings, space, encoding)
    rows = np.arange(len(tops))
    for step in _STEPS:
        shape = (len(tops), _AROUND, tops.shape[1])
        which = (rng.uniform(size=shape) < _SHARE_MOVED) & moved[:, None, :]
        near = np.clip(tops[:, None, :] + step * rng.normal(size=shape) * which, 0.0, 1.0)
        heights = gain(near.reshape(-1, shape[2])).reshape(shape[:2])
        best = heights.argmax(1)
        better = heights[rows, best] > height
        tops = np.where(better[:, None], near[rows, best], tops)
        height = np.where(better, heights[rows, best], height)
    highest = int(height.argmax())
    return _decoded(settings[highest], tops[highest], space, encoding)


def _movable(
    settings: Sequence[Mapping[str, Any]], space: Mapping[str, Domain], encoding: Encoding
) -> NDArray[np.bool_]:
    """Which columns may be moved, (N, D) bool: numbers that a setting holds and that no other range asks for."""
    asked = {name for domain in space.values() for name in domain.when}
    moved = np.zeros((len(settings), len(encoding.names)), dtype=bool)
    for row, params in zip(moved, settings, strict=True):
        for name, value in params.items():
            number = not isinstance(space[name], Choice) and contains(space[name], value)
            row[encoding.first[name]] = number and name not in asked
    return moved


def _decoded(
    params: Mapping[str, Any], point: Array, space: Mapping[str, Domain], encoding: Encoding
) -> dict[str, Any]:
    made = dict(params)
    moved = _movable([params], space, encoding)[0]
    for name in params:
        domain = space[name]
        if not isinstance(domain, Choice) and moved[encoding.first[name]]:
            made[name] = _value(domain, float(point[encoding.first[name]]))
    return made


def _value(domain: Float | Int, place: float) -> Any:
    """The inverse of what :class:`~autodl_ray.tune.space.Encoding` makes of a number."""
    if domain.log:
        value = float(domain.low * (domain.high / domain.low) ** place)
    else:
        value = domain.low + place * (domain.high - domain.low)
    inside = min(domain.high, max(domain.low, value))
    return round(inside) if isinstance(domain, Int) else float(inside)
