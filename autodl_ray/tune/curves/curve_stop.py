"""Scheduler ``curve``: a trial runs in one go, until its curve says that it cannot become the best any more.

After Domhan, Springenberg and Hutter, "Speeding up Automatic Hyperparameter Optimization of Deep Neural Networks by
Extrapolation of Learning Curves", IJCAI 2015, with the curves of the other trials in place of parametric ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autodl_ray.tune.contracts import GO_ON, Observed, SearchContext, Verdict
from autodl_ray.tune.curves.beliefs import Believer

__all__ = ["CurveStop"]

_SMALL_CHANCE = 0.05


class CurveStop:
    """Stops a trial whose last epoch beats the best report with less than one chance in twenty.

    It is decided at the ends of legs, and only once a whole trial is known: before that nobody knows how curves end.
    """

    def __init__(self, context: SearchContext) -> None:
        self._believer = Believer(context)
        self._epochs = context.epochs

    @property
    def looks(self) -> None:
        """Any epoch."""
        return None

    def report(self, trial: Observed, history: Sequence[Observed]) -> Verdict:
        """Stop a trial that has lost."""
        if trial.epochs >= self._epochs or trial.epochs not in self._believer.legs:
            return GO_ON
        if not any(h.status == "finished" for h in history):
            return GO_ON
        seen = replace(trial, status="paused")  # it is judged by its reports: it does not count as pending
        beliefs = self._believer.of([seen if h.number == trial.number else h for h in history])
        if beliefs is None or trial.number not in beliefs.known:
            return GO_ON
        chance = float(beliefs.chance(*beliefs.of_trials(self._believer.encoded([trial]), [trial]))[0])
        if chance >= _SMALL_CHANCE:
            return GO_ON
        return Verdict("stop", f"its chance to become the best was {chance:.1%}")

    def thaw(self, history: Sequence[Observed], candidate: Callable[[], Mapping[str, Any] | None]) -> int | None:
        """Return None: nothing is paused."""
        return None
