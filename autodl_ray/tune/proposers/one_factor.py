"""One factor at a time: each trial is the baseline with one field changed, so that its result has one cause."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from autodl_ray.seeding import rng_for
from autodl_ray.spec.sections import Choice, Domain, Float
from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.proposers.walk import Walk
from autodl_ray.tune.space import is_active, only_active, ordered, value_at

__all__ = ["OneFactorProposer"]

_GOLDEN = 0.6180339887498949
_MISSES = 64


class OneFactorProposer:
    """Changes exactly one field of ``context.baseline`` a trial: each field once, then each once more, and so on.

    The values of a number spread over its range from a seeded start (steps of the golden ratio); those of a choice
    come in the same way. Where a change brings in fields that the baseline does not have (their condition holds now),
    these take their default, or else the middle of their range: they are part of that change. A field that is not
    active in the baseline is not varied, since that would be two changes. A baseline may lie outside the ranges; a
    field it lacks is taken at the middle of its range.

    Attributes:
        baseline: What is changed: all fields that are active in it.
    """

    def __init__(self, context: SearchContext) -> None:
        self._context = context
        self.baseline = self._whole(only_active(context.space, context.baseline))
        self._walk = Walk(context.space, self._trials())

    def propose(self, number: int, attempt: int, history: Sequence[Observed]) -> dict[str, Any] | None:
        """Return the first change that is not known; None: every one was tried.

        Args:
            number: Not looked at: the history says how far the walk is.
            attempt: How many unknown changes are passed over.
            history: The trials so far.
        """
        return self._walk.next(attempt, history)

    def _trials(self) -> Iterator[dict[str, Any]]:
        """Walk the changes in rounds: one value of each field a round."""
        space = self._context.space
        names = [name for name in ordered(space) if name in self.baseline]
        values = {name: self._values(name, space[name]) for name in names}
        while values:
            for name in names:
                value = next(values[name], None) if name in values else None
                if value is None:
                    values.pop(name, None)
                    continue
                yield self._changed(name, value[0])

    def _values(self, name: str, domain: Domain) -> Iterator[tuple[Any]]:
        """Walk the values of a field other than that of the baseline, each once, in tuples of one."""
        start = rng_for(self._context.seed, "one_factor", name).random()
        seen, misses = {_key(self.baseline[name])}, 0
        for index in itertools.count():
            value = value_at(domain, (start + index * _GOLDEN) % 1.0)
            misses = misses + 1 if _key(value) in seen else 0
            if misses > _MISSES:
                break
            if misses == 0:
                seen.add(_key(value))
                yield (value,)
        if not isinstance(domain, Float):
            rest = domain.values if isinstance(domain, Choice) else range(domain.low, domain.high + 1)
            yield from ((value,) for value in rest if _key(value) not in seen)

    def _changed(self, name: str, value: Any) -> dict[str, Any]:
        """Return the baseline with one field changed, and with what that change brings in or takes away."""
        return self._whole(only_active(self._context.space, {**self._context.baseline, **self.baseline, name: value}))

    def _whole(self, params: dict[str, Any]) -> dict[str, Any]:
        """Add the fields that are active and missing, at the middle of their ranges."""
        for name in ordered(self._context.space):
            domain = self._context.space[name]
            if name not in params and is_active(domain, params):
                params[name] = value_at(domain, 0.5)
        return params


def _key(value: Any) -> tuple[bool, Any]:
    """Tell 1 from True."""
    return isinstance(value, bool), value
