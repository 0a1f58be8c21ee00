"""The ranges that a sweep searches: drawing from them, counting them, telling two draws apart, and encoding them.

A range may hold a condition (``when``): it belongs to a setting only where the fields it names have one of the values
it names. What does not belong to a setting is absent from its params.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodl_ray.spec.sections import Choice, Domain, Float, Int

__all__ = [
    "Encoding",
    "all_settings",
    "contains",
    "draw",
    "fingerprint",
    "is_active",
    "is_inside",
    "num_settings",
    "num_values",
    "only_active",
    "ordered",
    "same",
    "value_at",
]


def ordered(space: Mapping[str, Domain]) -> list[str]:
    """Return the names in an order in which a range comes after those its condition names; else by name."""
    left, names = dict(space), []
    while left:
        free = sorted(name for name, domain in left.items() if not any(other in left for other in domain.when))
        if not free:
            raise ValueError(f"{', '.join(sorted(left))}: their when depend on each other in a circle")
        names += free
        left = {name: domain for name, domain in left.items() if name not in free}
    return names


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same word: 1 and 1.0 are, 1 and True are not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def is_active(domain: Domain, params: Mapping[str, Any]) -> bool:
    """Whether the condition of a range holds: every field it names is there, with one of the values it names."""
    return not domain.when or all(
        other in params and any(same(params[other], value) for value in values) for other, values in domain.when.items()
    )


def only_active(space: Mapping[str, Domain], params: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the searched fields whose condition does not hold; fields that are not searched stay."""
    left = {name: value for name, value in params.items() if name not in space}
    for name in ordered(space):
        if name in params and is_active(space[name], left):
            left[name] = params[name]
    return {name: left[name] for name in params if name in left}


def draw(space: Mapping[str, Domain], rng: np.random.Generator) -> dict[str, Any]:
    """Draw one value of each range whose condition holds; conditions first, else in the order of their names."""
    params: dict[str, Any] = {}
    for name in ordered(space):
        if is_active(space[name], params):
            params[name] = _draw(space[name], rng)
    return params


def contains(domain: Domain, value: Any) -> bool:
    """Whether ``value`` lies in the range (a bool is no number)."""
    if isinstance(domain, Choice):
        return any(same(value, v) for v in domain.values)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    whole = isinstance(domain, Float) or float(value).is_integer()
    return whole and domain.low <= value <= domain.high


def is_inside(space: Mapping[str, Domain], params: Mapping[str, Any]) -> bool:
    """Whether params are a setting of the space: exactly the active fields of it, each within its range."""
    for name, domain in space.items():
        active = is_active(domain, params)
        if active != (name in params) or (active and not contains(domain, params[name])):
            return False
    return True


def fingerprint(params: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal settings only."""
    return json.dumps(dict(params), sort_keys=True)


def num_values(domain: Domain) -> float:
    """Count the values of one range; infinite for a float range."""
    if isinstance(domain, Float):
        return math.inf
    return len(_distinct(domain)) if isinstance(domain, Choice) else domain.high - domain.low + 1


def num_settings(space: Mapping[str, Domain]) -> float:
    """Count the different settings of a space; infinite when a float range can be active."""
    names = ordered(space)
    asked: dict[str, list[Any]] = {name: [] for name in space}
    for domain in space.values():
        for other, values in domain.when.items():
            known = asked[other]
            known += [v for v in values if contains(space[other], v) and not any(same(v, k) for k in known)]

    def count(position: int, params: dict[str, Any]) -> float:
        if position == len(names):
            return 1.0
        name = names[position]
        if not is_active(space[name], params):
            return count(position + 1, params)
        rest = num_values(space[name]) - len(asked[name])
        total = rest * count(position + 1, {**params, name: None}) if rest else 0.0
        return total + sum(count(position + 1, {**params, name: value}) for value in asked[name])

    return count(0, {})


def all_settings(space: Mapping[str, Domain]) -> Iterator[dict[str, Any]]:
    """Walk a finite space, the last name of :func:`ordered` fastest.

    Raises:
        ValueError: A float range can be active: its values cannot be walked.
    """
    names = ordered(space)

    def walk(position: int, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if position == len(names):
            yield params
            return
        name = names[position]
        domain = space[name]
        if not is_active(domain, params):
            yield from walk(position + 1, params)
            return
        if isinstance(domain, Float):
            raise ValueError(f"{name} is a float range: its values cannot be walked")
        for value in _distinct(domain) if isinstance(domain, Choice) else range(domain.low, domain.high + 1):
            yield from walk(position + 1, {**params, name: value})

    return walk(0, {})


def value_at(domain: Domain, unit: float) -> Any:
    """Return the value at ``unit`` (0 to 1) of a range: whole numbers and choices have equal shares of it."""
    unit = min(1.0, max(0.0, unit))
    if isinstance(domain, Choice):
        values = _distinct(domain)
        return values[min(len(values) - 1, int(unit * len(values)))]
    half = 0.5 if isinstance(domain, Int) else 0.0
    low, high = domain.low - half, domain.high + half
    if domain.log:
        value = math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
    else:
        value = low + unit * (high - low)
    if isinstance(domain, Int):
        return min(domain.high, max(domain.low, math.floor(value + 0.5)))
    return min(domain.high, max(domain.low, value))


class Encoding:
    """Settings as points of the unit cube, for models.

    A number is one column: its place between low and high, by order of magnitude in a log range. A choice is one
    column a value (1 where it has the value), or with ``onehot=False`` one column: the position of its value. A range
    with a condition has one more column, ``name?``: 1 where it is active. What is inactive, missing, or no value of
    its range (a default may be ``auto``) is imputed: 0.5 for a number, 0 for a choice. Numbers outside their range
    (defaults may be) are moved to its end.

    Attributes:
        names: Of the columns, e.g. ``lr``, ``optimizer=sgd``, ``momentum``, ``momentum?``.
        owners: The field of each column.
        first: The first column of each field.
        is_number: (D,) bool, which columns are numbers; the others are 0 or 1 (positions with ``onehot=False``).
    """

    def __init__(self, space: Mapping[str, Domain], *, onehot: bool = True) -> None:
        self._space = dict(space)
        self._onehot = onehot
        self._columns: list[tuple[str, Domain, int]] = []
        names: list[str] = []
        owners: list[str] = []
        numbers: list[bool] = []
        for name in ordered(space):
            domain = space[name]
            self._columns.append((name, domain, len(names)))
            made = self._names_of(name, domain)
            names += made
            owners += [name] * len(made)
            numbers += [not isinstance(domain, Choice), *[False] * (len(made) - 1)]
        self.names = tuple(names)
        self.owners = tuple(owners)
        self.first = {name: first for name, _, first in self._columns}
        self.is_number: NDArray[np.bool_] = np.array(numbers, dtype=bool)

    def encode(self, params: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return the point of one setting, (D,) float64 in [0, 1]."""
        point = np.zeros(len(self.names))
        self._write(point, params)
        return point

    def encode_all(self, many: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """Return the points of many settings, (N, D) float64 in [0, 1]."""
        points = np.zeros((len(many), len(self.names)))
        for row, params in zip(points, many, strict=True):
            self._write(row, params)
        return points

    def _names_of(self, name: str, domain: Domain) -> list[str]:
        flag = [f"{name}?"] if domain.when else []
        if isinstance(domain, Choice) and self._onehot:
            return [*(f"{name}={value}" for value in _distinct(domain)), *flag]
        return [name, *flag]

    def _write(self, point: NDArray[np.float64], params: Mapping[str, Any]) -> None:
        for name, domain, first in self._columns:
            known = name in params and is_active(domain, params)
            width = (
                self._write_choice(point, first, domain, params[name] if known else None)
                if isinstance(domain, Choice)
                else self._write_number(point, first, domain, params[name] if known else None)
            )
            if domain.when:
                point[first + width] = float(known)

    def _write_choice(self, point: NDArray[np.float64], first: int, domain: Choice, value: Any) -> int:
        values = _distinct(domain)
        place = next((i for i, v in enumerate(values) if same(v, value)), None)
        if not self._onehot:
            point[first] = 0.0 if place is None else place / max(1, len(values) - 1)
            return 1
        if place is not None:
            point[first + place] = 1.0
        return len(values)

    def _write_number(self, point: NDArray[np.float64], first: int, domain: Float | Int, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            point[first] = 0.5
            return 1
        inside = min(domain.high, max(domain.low, value))
        if domain.log:
            place = math.log(inside / domain.low) / math.log(domain.high / domain.low)
        else:
            place = (inside - domain.low) / (domain.high - domain.low)
        point[first] = min(1.0, max(0.0, place))
        return 1


def _distinct(domain: Choice) -> list[Any]:
    """Return the values of a choice, each once."""
    values: list[Any] = []
    for value in domain.values:
        if not any(same(value, v) for v in values):
            values.append(value)
    return values


def _draw(domain: Domain, rng: np.random.Generator) -> Any:
    if isinstance(domain, Choice):
        return domain.values[int(rng.integers(len(domain.values)))]
    if isinstance(domain, Int):
        if not domain.log:
            return int(rng.integers(domain.low, domain.high + 1))
        drawn = math.exp(rng.uniform(math.log(domain.low - 0.5), math.log(domain.high + 0.5)))
        return min(domain.high, max(domain.low, round(drawn)))
    if domain.log:
        drawn = math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
    else:
        drawn = float(rng.uniform(domain.low, domain.high))
    return min(domain.high, max(domain.low, drawn))
