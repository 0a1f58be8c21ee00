"""What is remembered of a history that only grows: which settings it holds, and how many lie in the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autodl_ray.spec.sections import Domain
from autodl_ray.tune.contracts import Observed
from autodl_ray.tune.space import fingerprint, is_inside

__all__ = ["Known"]


class Known:
    """The settings of a history; each trial is looked at once.

    The params of a trial never change, so only the trials behind those that are known are read. A history that does
    not go on from the known one (another sweep, or one that was cut) is read from its start.

    Attributes:
        num_inside: Different settings that lie in the space.
    """

    def __init__(self, space: Mapping[str, Domain]) -> None:
        self._space = space
        self._seen: set[str] = set()
        self._count = 0
        self._last = ""
        self.num_inside = 0

    def update(self, history: Sequence[Observed]) -> None:
        """Read the trials that are new."""
        if not self._goes_on(history):
            self._forget()
        for observed in history[self._count :]:
            text = fingerprint(observed.params)
            if text not in self._seen:
                self._seen.add(text)
                self.num_inside += is_inside(self._space, observed.params)
            self._last = text
        self._count = len(history)

    def __contains__(self, text: object) -> bool:
        """Whether settings of this fingerprint are known."""
        return text in self._seen

    def _goes_on(self, history: Sequence[Observed]) -> bool:
        if len(history) < self._count:
            return False
        return self._count == 0 or fingerprint(history[self._count - 1].params) == self._last

    def _forget(self) -> None:
        self._seen = set()
        self._count = 0
        self._last = ""
        self.num_inside = 0
