"""The scheduler that lets every trial run, and the patience that ends a trial without gain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autodl_ray.tune.contracts import GO_ON, Mode, Observed, Scheduler, Verdict

__all__ = ["NoScheduler", "Patience"]


class NoScheduler:
    """Lets every trial run to its end."""

    @property
    def looks(self) -> tuple[int, ...]:
        """None of the epochs."""
        return ()

    def report(self, trial: Observed, history: Sequence[Observed]) -> Verdict:
        """Go on."""
        return GO_ON

    def thaw(self, history: Sequence[Observed], candidate: Callable[[], Mapping[str, Any] | None]) -> int | None:
        """None: nothing is ever paused."""
        return None


class Patience:
    """Stops a trial after so many epochs without a new best of its own; else another scheduler decides.

    Args:
        inner: Told every report, and asked first who goes on.
        epochs: Without gain that are too many.
        mode: Whether the metric is to fall or to rise.
    """

    def __init__(self, inner: Scheduler, epochs: int, mode: Mode) -> None:
        self._inner = inner
        self._epochs = epochs
        self._sign = 1.0 if mode == "max" else -1.0

    @property
    def looks(self) -> None:
        """Any epoch."""
        return None

    def report(self, trial: Observed, history: Sequence[Observed]) -> Verdict:
        """Stop where the patience is over, else as the other scheduler says."""
        verdict = self._inner.report(trial, history)
        if verdict.kind == "stop" or not trial.values:
            return verdict
        best = max(trial.values, key=lambda row: (self._sign * row[1], -row[0]))[0]
        if trial.epochs - best >= self._epochs:
            return Verdict("stop", f"no gain in {self._epochs} epoch{'s' * (self._epochs != 1)}")
        return verdict

    def thaw(self, history: Sequence[Observed], candidate: Callable[[], Mapping[str, Any] | None]) -> int | None:
        """As the other scheduler says."""
        return self._inner.thaw(history, candidate)
