"""How fast exported models are on this machine, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

__all__ = ["SpeedRatio", "interleaved_rates", "interleaved_seconds", "speed_ratio"]

_AT_LEAST = 3


@dataclass(frozen=True)
class SpeedRatio:
    """How many times as fast one call is as another.

    Attributes:
        ratio: Median over the rounds; either call of a round met the same machine.
        low: Lower end of the 95 % interval of that median.
        high: Upper end of it.
        rounds: How many there were.
    """

    ratio: float
    low: float
    high: float
    rounds: int


def interleaved_seconds(
    calls: Mapping[str, Callable[[], object]], *, repeats: int = 9, limit_s: float = 4.0
) -> dict[str, list[float]]:
    """Time several calls in turn, so that other work on the machine meets all of them alike.

    Args:
        calls: Name → a call.
        repeats: Rounds after one for warming up; at least 3 are made.
        limit_s: No further round starts after this many seconds.

    Returns:
        Name → seconds of each round, equally many for all.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    began = time.perf_counter()
    for done in range(repeats):
        if done >= _AT_LEAST and time.perf_counter() - began > limit_s:
            break
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def interleaved_rates(
    calls: Mapping[str, Callable[[], object]], *, items: int, repeats: int = 9, limit_s: float = 4.0
) -> dict[str, float]:
    """Return name → items a second, from the median round of :func:`interleaved_seconds`.

    Args:
        calls: Name → a call that handles ``items`` items.
        items: A call.
        repeats: Rounds after one for warming up; at least 3 are made.
        limit_s: No further round starts after this many seconds.
    """
    seconds = interleaved_seconds(calls, repeats=repeats, limit_s=limit_s)
    return {name: items / median(times) for name, times in seconds.items()}


def speed_ratio(slower: list[float], faster: list[float]) -> SpeedRatio:
    """Return how many times as fast the second call is as the first, from the seconds of the same rounds.

    The interval of the median is that of the sign test: it assumes nothing about how a busy machine disturbs.

    Args:
        slower: Seconds a round, e.g. of FP32.
        faster: Seconds a round, e.g. of INT8.
    """
    ratios = sorted(a / b for a, b in zip(slower, faster, strict=True))
    count = len(ratios)
    reach = round(0.98 * count**0.5)  # 1.96 standard deviations of a binomial with p = 1/2
    low, high = max(0, (count - 1) // 2 - reach), min(count - 1, count // 2 + reach)
    return SpeedRatio(median(ratios), ratios[low], ratios[high], count)
