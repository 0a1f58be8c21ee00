"""Strategies that walk a fixed list of settings: the next one is the first that the history does not hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autodl_ray.spec.sections import Domain
from autodl_ray.tune.contracts import Observed
from autodl_ray.tune.proposers.known import Known
from autodl_ray.tune.space import fingerprint

__all__ = ["Walk"]


class Walk:
    """A place in a list of settings that is made as far as it is needed.

    The place is derived from the history alone; it is remembered because what was known stays known.
    """

    def __init__(self, space: Mapping[str, Domain], settings: Iterator[dict[str, Any]]) -> None:
        self._settings = settings
        self._known = Known(space)
        self._made: list[dict[str, Any]] = []
        self._place = 0
        self._count = 0

    def next(self, attempt: int, history: Sequence[Observed]) -> dict[str, Any] | None:
        """Return the first settings that are not known, after ``attempt`` others; None: the list has ended."""
        if len(history) < self._count:
            self._place = 0
        self._count = len(history)
        self._known.update(history)
        while (params := self._at(self._place)) is not None and fingerprint(params) in self._known:
            self._place += 1
        position, left = self._place, attempt
        while (params := self._at(position)) is not None:
            if fingerprint(params) not in self._known:
                if left == 0:
                    return dict(params)
                left -= 1
            position += 1
        return None

    def _at(self, position: int) -> dict[str, Any] | None:
        while len(self._made) <= position:
            params = next(self._settings, None)
            if params is None:
                return None
            self._made.append(params)
        return self._made[position]
