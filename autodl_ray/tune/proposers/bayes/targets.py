"""What the Gaussian process is told of a history: one target a setting, and how much it is to be trusted.

A trial that ended early has not shown what it would have reached: its value counts for the epoch where it was cut, and
told as it is it would make a fast learner look bad beside a slow one that was trained longer. So all trials are
compared at one epoch, the **level**: the highest that at least three trials reached (the last, as soon as three were
whole). A trial that got there is told with its best value up to the level. One that was cut, paused, or is still
running below it is told with its value so far, plus the median of what the trials that got there gained from that epoch
on, and with the spread of those gains as its noise. A failed trial has no value of its own: it is told as the worst
one, with noise, so that its neighbourhood is not tried again and again (as SMAC does: F. Hutter et al., 2011).
"""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autodl_ray.tune.contracts import Mode, Observed

__all__ = ["Target", "pending_of", "targets_of"]

_ENOUGH = 3
_FAILED_NOISE = 0.25


@dataclass(frozen=True)
class Target:
    """What is told of one trial.

    Attributes:
        number: Of the trial.
        params: Its settings.
        value: Higher is better (the sign is turned where the metric is to fall).
        spread: Standard deviation of what was estimated, in the same units; 0 for what was measured.
        kind: ``measured``, ``extrapolated`` or ``failed``.
    """

    number: int
    params: Mapping[str, Any]
    value: float
    spread: float
    kind: str


def targets_of(history: Sequence[Observed], mode: Mode) -> list[Target]:
    """Return what is told of the trials that have something to tell, in their order.

    Args:
        history: The trials so far.
        mode: Whether the metric is to fall or to rise.
    """
    sign = 1.0 if mode == "max" else -1.0
    curves = {o.number: _Curve.of(o, sign) for o in history if o.values and o.status != "failed"}
    if not curves:
        return []
    level = _level(list(curves.values()))
    there = [c for c in curves.values() if c.epochs[-1] >= level]
    gains: dict[int, tuple[float, float]] = {}
    told: list[Target] = []
    for observed in history:
        curve = curves.get(observed.number)
        if curve is None:
            continue
        last = curve.epochs[-1]
        if last >= level:
            told.append(Target(observed.number, observed.params, curve.at(level), 0.0, "measured"))
            continue
        if last not in gains:
            gains[last] = _gain(there, last, level)
        gain, spread = gains[last]
        told.append(Target(observed.number, observed.params, curve.bests[-1] + gain, spread, "extrapolated"))
    return sorted([*told, *_failed(history, told)], key=lambda target: target.number)


def pending_of(history: Sequence[Observed]) -> list[Mapping[str, Any]]:
    """Return the settings of the running trials that have not reported yet."""
    return [o.params for o in history if o.status == "running" and not o.values]


@dataclass(frozen=True)
class _Curve:
    """The epochs of a trial and its best value up to each, higher is better."""

    epochs: list[int]
    bests: list[float]

    @classmethod
    def of(cls, observed: Observed, sign: float) -> _Curve:
        bests: list[float] = []
        for _, value in observed.values:
            bests.append(max(sign * value, bests[-1]) if bests else sign * value)
        return cls([epoch for epoch, _ in observed.values], bests)

    def at(self, epoch: int) -> float:
        """Return the best value up to an epoch; the first one when there is none before it."""
        return self.bests[max(0, bisect.bisect_right(self.epochs, epoch) - 1)]


def _level(curves: list[_Curve]) -> int:
    """Return the highest epoch that enough trials reached; with fewer trials the one that all reached."""
    reached = sorted((c.epochs[-1] for c in curves), reverse=True)
    return reached[min(_ENOUGH, len(reached)) - 1]


def _gain(there: list[_Curve], epoch: int, level: int) -> tuple[float, float]:
    """Return the median gain from an epoch to the level, and the spread of the gains."""
    gains = [c.at(level) - c.at(epoch) for c in there]
    middle = statistics.median(gains)
    return middle, 1.4826 * statistics.median(abs(g - middle) for g in gains) + 0.25 * abs(middle)


def _failed(history: Sequence[Observed], told: list[Target]) -> list[Target]:
    values = [target.value for target in told]
    if not values:
        return []
    worst, width = min(values), max(values) - min(values)
    return [Target(o.number, o.params, worst, _FAILED_NOISE * width, "failed") for o in history if o.status == "failed"]
