"""How far counts of today are from counts of the training, and whether that is more than chance: pure functions.

The thresholds are those of practice for the population stability index (PSI): below 0.1 nothing changed, from 0.25 on
something did (Siddiqi, Credit Risk Scorecards, 2006). They were made for large samples. Of two samples of the same
population, of sizes n and m in k bins, the PSI is about (1/n + 1/m) times a chi-square of k − 1 degrees of freedom
(Yurdakul, Statistical Properties of Population Stability Index, 2018). So a limit is the threshold plus the mean of
that, and never below its quantile for one false alarm in a hundred looks at all statistics together.

The Jensen–Shannon divergence is, for small changes, an eighth of the PSI (in nats); so its limit is that of the PSI.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["DRIFTING", "LEAST", "Distance", "Verdict", "class_distance", "js_divergence", "psi", "psi_distance",
           "psi_limit"]  # fmt: skip

Verdict = Literal["stable", "drifting", "too few"]

DRIFTING = 0.25
"""PSI from which a statistic drifts, in large samples."""

LEAST = (50, 20)
"""Observed pictures, and pictures of the reference, below which nothing is said."""

_LOOKS = 8  # statistics that are looked at together
_FALSE_ALARMS = 0.01
_JS_BY_PSI = 1 / (8 * math.log(2))  # bits
_SMOOTHING = 0.5  # added to each bin: an empty one would make the PSI infinite


@dataclass(frozen=True)
class Distance:
    """A distance with its limit.

    Attributes:
        value: PSI, or Jensen–Shannon divergence in bits.
        limit: From which on it is drift.
        verdict: What follows.
    """

    value: float
    limit: float
    verdict: Verdict

    def to_json(self, name: str) -> dict[str, object]:
        """Return it as JSON; ``name`` is that of the value."""
        return {name: round(self.value, 4), "limit": round(self.limit, 4), "verdict": self.verdict}


def psi_distance(reference: Sequence[int], seen: Sequence[int]) -> Distance:
    """Compare the counts of a statistic.

    Args:
        reference: K counts of the training.
        seen: K counts of today, in the same bins.
    """
    m, n = sum(reference), sum(seen)
    return _judged(psi(reference, seen) if n and m else 0.0, psi_limit(n, m, bins=len(reference)), n, m)


def class_distance(reference: Sequence[int], seen: Sequence[int]) -> Distance:
    """Compare how often each of C classes was answered, by the Jensen–Shannon divergence."""
    m, n = sum(reference), sum(seen)
    limit = min(0.95, _JS_BY_PSI * psi_limit(n, m, bins=len(reference)))  # it is never above 1
    return _judged(js_divergence(reference, seen) if n and m else 0.0, limit, n, m)


def psi(reference: Sequence[int], seen: Sequence[int]) -> float:
    """Return the population stability index of two lists of counts, 0 for equal shares."""
    expected, observed = _shares(reference), _shares(seen)
    return float(((observed - expected) * np.log(observed / expected)).sum())


def js_divergence(reference: Sequence[int], seen: Sequence[int]) -> float:
    """Return the Jensen–Shannon divergence of two lists of counts in bits, in [0, 1] (Lin, 1991)."""
    p, q = (np.asarray(counts, np.float64) / sum(counts) for counts in (reference, seen))
    middle = (p + q) / 2

    def towards(shares: npt.NDArray[np.float64]) -> float:
        there = shares > 0
        return float((shares[there] * np.log2(shares[there] / middle[there])).sum())

    return (towards(p) + towards(q)) / 2


def psi_limit(seen: int, reference: int, *, bins: int) -> float:
    """Return the PSI from which on a statistic drifts, for samples of these sizes; see the module."""
    if not seen or not reference:
        return DRIFTING
    noise, degrees = 1 / seen + 1 / reference, max(1, bins - 1)
    return max(DRIFTING + degrees * noise, _chi_square(1 - _FALSE_ALARMS / _LOOKS, degrees) * noise)


def _judged(value: float, limit: float, seen: int, reference: int) -> Distance:
    if seen < LEAST[0] or reference < LEAST[1]:
        return Distance(value, limit, "too few")
    return Distance(value, limit, "drifting" if value >= limit else "stable")


def _shares(counts: Sequence[int]) -> npt.NDArray[np.float64]:
    smooth = np.asarray(counts, np.float64) + _SMOOTHING
    shares: npt.NDArray[np.float64] = smooth / smooth.sum()
    return shares


def _chi_square(quantile: float, degrees: int) -> float:
    """Return a quantile of the chi-square distribution, to about 1 % (Wilson and Hilferty, 1931)."""
    step = 2 / (9 * degrees)
    return degrees * (1 - step + NormalDist().inv_cdf(quantile) * math.sqrt(step)) ** 3
