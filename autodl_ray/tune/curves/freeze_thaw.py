"""Scheduler ``freeze_thaw``: every trial is paused at the end of a leg, and what promises most goes on.

After Swersky, Snoek and Adams, "Freeze-Thaw Bayesian Optimization", 2014.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from autodl_ray.tune.contracts import GO_ON, Observed, SearchContext, Verdict
from autodl_ray.tune.curves.beliefs import Believer

__all__ = ["FreezeThaw"]

_SMALL_CHANCE = 0.05
_PAUSED = "the end of a leg: what promises most goes on"


class FreezeThaw:
    """Trains in legs (3, 6, 12, 25 and 50 of 50 epochs); nothing is lost for good, so a late winner is found.

    When a place is free, every paused trial is compared with the next candidate by the improvement on the best
    report that is expected of its last epoch, for each epoch of its next leg.
    """

    def __init__(self, context: SearchContext) -> None:
        self._believer = Believer(context)
        self._epochs = context.epochs

    @property
    def looks(self) -> tuple[int, ...]:
        """The ends of the legs."""
        return tuple(self._believer.legs)

    def report(self, trial: Observed, history: Sequence[Observed]) -> Verdict:
        """Pause at the end of a leg."""
        if trial.epochs >= self._epochs or trial.epochs not in self._believer.legs:
            return GO_ON
        return Verdict("pause", _PAUSED)

    def thaw(self, history: Sequence[Observed], candidate: Callable[[], Mapping[str, Any] | None]) -> int | None:
        """Return the paused trial of the greatest expected improvement an epoch, unless the candidate's is greater.

        When there are no new settings left, the sweep ends as soon as every paused trial has less than one chance
        in twenty to become the best.
        """
        paused = [h for h in history if h.status == "paused"]
        beliefs = self._believer.of(history) if paused else None
        new = candidate() if paused else None
        if beliefs is None:
            return paused[0].number if paused and new is None else None
        paused = [h for h in paused if h.number in beliefs.known]
        if not paused:
            return None
        mean, spread = beliefs.of_trials(self._believer.encoded(paused), paused)
        gain = beliefs.gain(mean, spread) - np.log([self._cost(trial.epochs) for trial in paused])
        best = int(np.argmax(gain))
        if new is None:
            return paused[best].number if beliefs.chance(mean, spread).max() >= _SMALL_CHANCE else None
        rival = beliefs.gain(*beliefs.of_settings(self._believer.encoding.encode_all([new])))
        return paused[best].number if gain[best] > rival[0] - np.log(self._cost(0)) else None

    def _cost(self, epoch: int) -> int:
        """The epochs of the next leg."""
        return next(end for end in (*self._believer.legs, epoch + 1) if end > epoch) - epoch
