"""How fast two exported models are on this machine, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

__all__ = ["interleaved_rates"]


def interleaved_rates(
    calls: Mapping[str, Callable[[], object]], *, items: int, repeats: int = 9, limit_s: float = 4.0
) -> dict[str, float]:
    """Time several calls in turn, so that other work on the machine meets all of them alike.

    Args:
        calls: Name → a call that handles ``items`` items.
        items: A call.
        repeats: Rounds after one for warming up; at least 3 are made.
        limit_s: No further round starts after this many seconds.

    Returns:
        Name → items a second, from the median round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    began = time.perf_counter()
    for done in range(repeats):
        if done >= 3 and time.perf_counter() - began > limit_s:
            break
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: items / median(times) for name, times in seconds.items()}
