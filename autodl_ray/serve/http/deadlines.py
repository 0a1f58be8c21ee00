"""The time cap of requests, kept by one look at all of them now and then: a timer for each costs 20 µs."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Deadlines"]


class Deadlines:
    """Cancels tasks that take too long; a task is cancelled up to a quarter of the time late.

    Args:
        seconds: That a task may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._tick = min(1.0, seconds / 4)
        self._until: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> asyncio.Task[Any]:
        """Begin the time of the running task."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._until[task] = loop.time() + self.seconds
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(self._tick, self._look)
        return task

    def leave(self, task: asyncio.Task[Any]) -> None:
        """End it."""
        self._until.pop(task, None)
        self._late.discard(task)

    def is_late(self, task: asyncio.Task[Any]) -> bool:
        """Whether the task was cancelled from here; if so, it goes on as if it had not been."""
        if task not in self._late:
            return False
        task.uncancel()
        return True

    def _look(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        for task, until in list(self._until.items()):
            if now >= until:
                del self._until[task]
                self._late.add(task)
                task.cancel()
        if self._until:
            self._loop.call_later(self._tick, self._look)
        else:
            self._loop = None
