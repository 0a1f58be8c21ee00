"""The median rule: a trial stops when its best is below what the others had on average by the same epoch.

Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017, section 3.2.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autodl_ray.tune.contracts import GO_ON, Observed, SearchContext, Verdict

__all__ = ["MedianStop"]

_FEWEST = 3


class MedianStop:
    """Stops a trial whose best value is worse than the median of the others' running averages at the same epoch.

    Only trials that came as far are compared, and at least three of them.
    """

    def __init__(self, context: SearchContext) -> None:
        self._grace = context.grace_period
        self._sign = 1.0 if context.mode == "max" else -1.0
        # Running averages by epoch and trial: computed once a report, not once a comparison.
        self._sums: dict[int, tuple[float, int]] = {}
        self._averages: dict[int, dict[int, float]] = {}

    @property
    def looks(self) -> None:
        """Any epoch."""
        return None

    def report(self, trial: Observed, history: Sequence[Observed]) -> Verdict:
        """Compare at the epoch that was just reported."""
        epoch, last = trial.values[-1]
        total, count = self._sums.get(trial.number, (0.0, 0))
        if epoch > count:  # an epoch that is made again after a damaged checkpoint counts once
            total, count = total + last, epoch
            self._sums[trial.number] = (total, count)
        self._averages.setdefault(epoch, {})[trial.number] = total / len(trial.values)
        others = [average for number, average in self._averages[epoch].items() if number != trial.number]
        if epoch < self._grace or len(others) < _FEWEST or trial.value is None:
            return GO_ON
        median = statistics.median(others)
        if self._sign * trial.value >= self._sign * median:
            return GO_ON
        return Verdict("stop", f"its best {trial.value:.4g} is worse than the median {median:.4g} of the others")

    def thaw(self, history: Sequence[Observed], candidate: Callable[[], Mapping[str, Any] | None]) -> int | None:
        """None: nothing is ever paused."""
        return None
