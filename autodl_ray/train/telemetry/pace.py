"""Which steps get a row of metrics: densely at first, then about one a second, or every so many."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pace"]

_FIRST_S, _SHARE = 0.05, 0.5


class Pace:
    """Decides at every step, in less than a microsecond.

    Args:
        every_steps: A row at each multiple of this; None: by the clock. The first row comes at once, each next one
            after half the time that has passed so far (at least 0.05 s, at most a second): a training of half a second
            has five rows, one of an hour no more than one a second.
        clock: Seconds that never go back.
    """

    def __init__(self, every_steps: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._clock = every_steps, clock
        self._began: float | None = None
        self._due = 0.0
        self._interval_s = 1.0

    def wants(self, step: int) -> bool:
        """Whether ``step`` (from 1) gets a row; asked once a step."""
        if self._every is not None:
            return step % self._every == 0
        now = self._clock()
        if self._began is None:
            self._began = now
        elif now < self._due:
            return False
        self._due = now + min(self._interval_s, max(_FIRST_S, _SHARE * (now - self._began)))
        return True

    def slow_down(self) -> None:
        """From now on half as often (no change where steps are counted): there are many rows already."""
        self._interval_s *= 2
