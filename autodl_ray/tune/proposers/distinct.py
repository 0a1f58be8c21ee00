"""Settings are tried once: a proposer is asked until it names some that are new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autodl_ray.spec.sections import Domain
from autodl_ray.tune.contracts import Observed, Proposer
from autodl_ray.tune.proposers.known import Known
from autodl_ray.tune.space import all_settings, fingerprint, num_settings

__all__ = ["Distinct", "propose_distinct"]

_REDRAWS = 50


class Distinct:
    """A proposer that never names settings which the history holds.

    What it remembers of the history (:class:`Known`) is derived from it, so that a proposal costs the same however
    many trials there are, and a new object of the same history proposes the same.

    Attributes:
        inner: The strategy.
    """

    def __init__(self, inner: Proposer, space: Mapping[str, Domain]) -> None:
        self.inner = inner
        self._space = dict(space)
        self._size = num_settings(space)
        self._known = Known(space)

    def propose(self, number: int, attempt: int, history: Sequence[Observed]) -> dict[str, Any] | None:
        """Return settings that are new; None when there are no more of them.

        Args:
            number: Of the trial, from 0.
            attempt: 0, or more when the settings are to be others than those of the attempts before.
            history: The trials so far.
        """
        self._known.update(history)
        if self._known.num_inside >= self._size:
            return None
        first = attempt * _REDRAWS
        for redraw in range(first, first + _REDRAWS):
            params = self.inner.propose(number, redraw, history)
            if params is None or fingerprint(params) not in self._known:
                return params
        return self._first_unseen()

    def _first_unseen(self) -> dict[str, Any] | None:
        """Walk a finite space that is nearly used up; only reached after many draws gave nothing new."""
        if self._size == float("inf"):
            return None
        return next((p for p in all_settings(self._space) if fingerprint(p) not in self._known), None)


def propose_distinct(
    proposer: Proposer, space: Mapping[str, Domain], number: int, history: Sequence[Observed]
) -> dict[str, Any] | None:
    """Ask until the settings are new.

    A proposer made by :func:`autodl_ray.tune.proposers.make_proposer` remembers what it has seen; any other one is
    compared with the whole history at each call.

    Returns:
        The settings; None when every setting of a finite space has been proposed, or the strategy knows no more.
    """
    distinct = proposer if isinstance(proposer, Distinct) else Distinct(proposer, space)
    return distinct.propose(number, 0, history)
