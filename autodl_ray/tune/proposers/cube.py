"""The ranges as a matrix of coordinates: drawing, snapping to values and encoding many settings at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodl_ray.spec.sections import Choice, Domain, Int
from autodl_ray.tune.space import Encoding, is_active, ordered, same

__all__ = ["Cube"]

Array = NDArray[np.float64]


class Cube:
    """Settings as rows of coordinates, one a field: the place of a number in its range, the index of a choice.

    Attributes:
        names: Of the fields, conditions before what depends on them.
        encoding: How a setting becomes a point.
        is_number: (F,) bool, which fields are numbers.
        groups: (D,) int, the field of each column of the encoding.
    """

    def __init__(self, space: Mapping[str, Domain]) -> None:
        self.names = ordered(space)
        self.encoding = Encoding(space)
        self._domains = [space[name] for name in self.names]
        self._values = [_values(domain) for domain in self._domains]
        self.is_number = np.array([not isinstance(d, Choice) for d in self._domains], dtype=bool)
        self.groups = np.array([self.names.index(owner) for owner in self.encoding.owners], dtype=np.intp)

    def draw(self, units: Array) -> Array:
        """Turn points of the unit cube, (N, F), into coordinates (N, F) of values."""
        coordinates = units.copy()
        for f, values in enumerate(self._values):
            if values:
                coordinates[:, f] = np.minimum(np.floor(units[:, f] * len(values)), len(values) - 1)
        return self.snap(coordinates)

    def snap(self, coordinates: Array) -> Array:
        """Move coordinates, (N, F), to those of values: whole numbers to the nearest one."""
        snapped = coordinates.copy()
        for f, domain in enumerate(self._domains):
            if not isinstance(domain, Choice):
                snapped[:, f] = np.clip(snapped[:, f], 0.0, 1.0)
            if isinstance(domain, Int):
                snapped[:, f] = _places(domain, _numbers(domain, snapped[:, f]))
        return snapped

    def encode(self, coordinates: Array) -> Array:
        """Encode rows of coordinates, (N, F), as :class:`Encoding` does the settings: (N, D) in [0, 1]."""
        rows = len(coordinates)
        points = np.zeros((rows, len(self.encoding.names)))
        active = self.active(coordinates)
        for f, (name, domain) in enumerate(zip(self.names, self._domains, strict=True)):
            first = self.encoding.first[name]
            if isinstance(domain, Choice):
                points[np.arange(rows), first + coordinates[:, f].astype(np.intp)] = active[:, f]
                width = len(self._values[f])
            else:
                points[:, first] = np.where(active[:, f], coordinates[:, f], 0.5)
                width = 1
            if domain.when:
                points[:, first + width] = active[:, f]
        return points

    def active(self, coordinates: Array) -> NDArray[np.bool_]:
        """Return which fields belong to each setting, (N, F) bool."""
        active = np.ones(coordinates.shape, dtype=bool)
        for f, domain in enumerate(self._domains):
            for other, allowed in domain.when.items():
                parent = self.names.index(other)
                active[:, f] &= active[:, parent] & self._has(parent, coordinates[:, parent], allowed)
        return active

    def params(self, coordinates: Array) -> dict[str, Any]:
        """Return the settings of one row, (F,)."""
        params: dict[str, Any] = {}
        for f, (name, domain) in enumerate(zip(self.names, self._domains, strict=True)):
            if not is_active(domain, params):
                continue
            if isinstance(domain, Choice):
                params[name] = self._values[f][int(coordinates[f])]
            else:
                number = _numbers(domain, coordinates[f : f + 1])[0]
                params[name] = int(number) if isinstance(domain, Int) else float(number)
        return params

    def place(self, params: Mapping[str, Any]) -> Array:
        """Return the coordinates of settings, (F,); what they lack, or has no place, is put in the middle."""
        row = np.zeros(len(self.names))
        for f, (name, domain) in enumerate(zip(self.names, self._domains, strict=True)):
            value = params.get(name)
            if isinstance(domain, Choice):
                row[f] = next((i for i, v in enumerate(self._values[f]) if same(v, value)), 0)
            elif isinstance(value, bool) or not isinstance(value, int | float):
                row[f] = 0.5
            else:
                row[f] = _places(domain, np.clip(np.array([float(value)]), domain.low, domain.high))[0]
        return row

    def units(self, params: Mapping[str, Any]) -> Array:
        """Return a point of the unit cube, (F,), that :meth:`draw` turns into these settings; see :meth:`place`."""
        units = self.place(params)
        for f, (name, values) in enumerate(zip(self.names, self._values, strict=True)):
            if values:
                known = any(same(value, params.get(name)) for value in values)
                units[f] = (units[f] + 0.5) / len(values) if known else 0.5
        return units

    def neighbours(self, row: Array) -> Array:
        """Return the settings that differ in one choice, or by 1 in one whole number: (M, F)."""
        found = [row]
        for f, domain in enumerate(self._domains):
            if isinstance(domain, Int):
                number = _numbers(domain, row[f : f + 1])[0]
                near = [n for n in (number - 1, number + 1) if domain.low <= n <= domain.high]
                others = list(_places(domain, np.array(near)))
            elif isinstance(domain, Choice):
                others = [float(i) for i in range(len(self._values[f])) if i != int(row[f])]
            else:
                continue
            for other in others:
                changed = row.copy()
                changed[f] = other
                found.append(changed)
        return np.array(found)

    def _has(self, field: int, column: Array, allowed: tuple[Any, ...]) -> NDArray[np.bool_]:
        domain = self._domains[field]
        if isinstance(domain, Choice):
            fits = np.array([any(same(v, a) for a in allowed) for v in self._values[field]], dtype=bool)
            return np.asarray(fits[column.astype(np.intp)])
        numbers = [float(a) for a in allowed if isinstance(a, int | float) and not isinstance(a, bool)]
        return np.isin(_numbers(domain, column), numbers)


def _values(domain: Domain) -> list[Any]:
    """Return the different values of a choice; nothing for a number."""
    kept: list[Any] = []
    for value in domain.values if isinstance(domain, Choice) else ():
        if not any(same(value, k) for k in kept):
            kept.append(value)
    return kept


def _numbers(domain: Any, places: Array) -> Array:
    """Return the numbers at places 0 to 1 of a range, whole ones rounded."""
    if domain.log:
        numbers = domain.low * (domain.high / domain.low) ** places
    else:
        numbers = domain.low + places * (domain.high - domain.low)
    return np.asarray(np.clip(np.round(numbers) if isinstance(domain, Int) else numbers, domain.low, domain.high))


def _places(domain: Any, numbers: Array) -> Array:
    """Return the places 0 to 1 of numbers of a range."""
    if domain.log:
        return np.asarray(np.log(numbers / domain.low) / np.log(domain.high / domain.low))
    return np.asarray((numbers - domain.low) / (domain.high - domain.low))
