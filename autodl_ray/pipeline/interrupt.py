"""Ctrl-C: once ends well with the best so far, twice ends at once and leaves no Ray process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from autodl_ray.runtime import StopFlag

__all__ = ["interruptible"]


@contextmanager
def interruptible(stop: StopFlag, *, say: Callable[[str], None], kill_now: Callable[[], None]) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into the wish to stop while the block runs.

    Args:
        stop: Set by the first signal.
        say: Tells the user what the first signal does.
        kill_now: Ends every process of this run's Ray; called by the second signal, after which this process
            exits with 130.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            kill_now()
            stop.clear()
            os._exit(130)
        stop.set()
        say("stopping: the best model so far is being finished (Ctrl-C again to stop at once)")

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.clear()
