"""Work for a few threads in lanes, one a model: each thread takes what waits in the next lane, up to a batch."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

__all__ = ["Batching", "Lane", "Lanes", "choose_batching", "measure_batches"]

_SIZES = (1, 2, 4, 8, 16)
_PAYS = 1.15  # a batch has to be this much faster a picture than one alone, or latency is given away for nothing


@dataclass(frozen=True)
class Batching:
    """How pictures of a model share a call.

    Attributes:
        size: Most pictures a call.
        wait_s: How long a thread waits for a batch to fill; 0: it takes what is there.
        line: The choice in one line.
    """

    size: int = 1
    wait_s: float = 0.0
    line: str = "one picture a call"


def measure_batches(call: Callable[[int], object], *, budget_s: float = 1.0) -> dict[int, float]:
    """Time calls with 1, 2, 4, … pictures in this thread.

    Args:
        call: Makes one call with so many pictures.
        budget_s: About how long to measure at most.

    Returns:
        Pictures a call → seconds of the fastest call. Larger sizes are left out when the time is up.
    """
    seconds: dict[int, float] = {}
    until = time.perf_counter() + budget_s
    for size in _SIZES:
        if seconds and time.perf_counter() + 2 * seconds[max(seconds)] > until:
            break
        call(size)
        best, rounds = float("inf"), 0
        while rounds < 3 or (rounds < 20 and best < 0.002):
            began = time.perf_counter()
            call(size)
            best, rounds = min(best, time.perf_counter() - began), rounds + 1
        seconds[size] = best
    return seconds


def choose_batching(seconds: Mapping[int, float], *, latency_target_s: float | None = None) -> Batching:
    """Choose the size of batches from what was measured.

    The smallest size within a tenth of the best speed is taken, if it is at least 1.15 times as fast a picture as one
    alone. With a latency target a call takes at most half of it. A thread waits for others only with a target, and at
    most a quarter of what the target leaves: at load batches fill by themselves.

    Args:
        seconds: Pictures a call → seconds, with an entry for 1.
        latency_target_s: Seconds in which an answer is wanted; None: no wish.
    """
    allowed = {n: s for n, s in seconds.items() if n == 1 or latency_target_s is None or s <= latency_target_s / 2}
    each = {n: s / n for n, s in allowed.items()}
    best = min(each.values())
    size = min(n for n, s in each.items() if s <= 1.1 * best)
    gain = each[1] / each[size]
    if size == 1 or gain < _PAYS:
        return Batching(line=f"one picture a call ({1000 * seconds[1]:.3g} ms); batches do not pay here")
    wait = 0.0
    if latency_target_s is not None and gain > 2:
        wait = max(0.0, min(0.005, (latency_target_s - allowed[size]) / 4))
    line = f"up to {size} pictures a call, {gain:.1f} times as fast as one by one"
    return Batching(size, wait, line + (f", waiting {1000 * wait:.1f} ms for them" if wait else ""))


@dataclass(slots=True)
class _Job:
    item: Any
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    weight: int


class Lane:
    """The work of one kind.

    Args:
        work: Turns the items of a batch into one result each; an exception among the results is that item's alone.
        batching: Size of batches and how long they may fill.
    """

    def __init__(self, work: Callable[[Sequence[Any]], Sequence[Any]], batching: Batching = Batching()) -> None:
        self.batching = batching
        self.batches = self.items = 0
        self.jobs: deque[_Job] = deque()
        self._work = work

    def take(self) -> list[_Job]:
        """Take a batch of what waits; nothing when another thread was faster."""
        batch: list[_Job] = []
        weight = 0
        try:
            while weight < self.batching.size:
                job = self.jobs.popleft()
                if not job.future.cancelled():
                    batch.append(job)
                    weight += job.weight
        except IndexError:
            pass
        return batch

    def run(self, batch: list[_Job]) -> None:
        """Work on a batch and hand out the results."""
        self.batches += 1
        self.items += len(batch)
        try:
            results = self._work([job.item for job in batch])
        except Exception as error:
            results = [error] * len(batch)
        if len(batch) == 1:
            _tell(batch[0].loop, [(batch[0].future, results[0])])
            return
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
        for job, result in zip(batch, results, strict=True):
            by_loop.setdefault(job.loop, []).append((job.future, result))
        for loop, pairs in by_loop.items():
            _tell(loop, pairs)


class Lanes:
    """A few threads that serve the lanes in turn, so that one busy model does not hold up another.

    Args:
        threads: How many.
    """

    def __init__(self, threads: int) -> None:
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._lanes: tuple[Lane, ...] = ()
        self._turn = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._loop, name=f"work-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def add(self, lane: Lane) -> Lane:
        """Serve this lane too."""
        with self._lock:
            self._lanes = (*self._lanes, lane)
        return lane

    def remove(self, lane: Lane) -> bool:
        """Serve this lane no longer; not while something waits in it: then False."""
        with self._lock:
            if lane.jobs:
                return False
            self._lanes = tuple(other for other in self._lanes if other is not lane)
            return True

    async def do(self, lane: Lane, item: Any, *, weight: int = 1) -> Any:
        """Wait for the result of one item; ``weight`` is how many pictures it counts for."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        lane.jobs.append(_Job(item, loop, future, weight))
        self._tokens.put(True)
        return await future

    def close(self) -> None:
        """Let the threads end after what they are at."""
        for _ in self._threads:
            self._tokens.put(False)

    def _loop(self) -> None:
        while self._tokens.get():
            lane = self._next()
            if lane is None:  # its work was taken with another batch
                continue
            batching = lane.batching
            if batching.wait_s and len(lane.jobs) < batching.size:
                time.sleep(batching.wait_s)
            batch = lane.take()
            if batch:
                lane.run(batch)
                del batch  # what it holds is not kept until the next request

    def _next(self) -> Lane | None:
        lanes = self._lanes
        for step in range(1, len(lanes) + 1):
            at = (self._turn + step) % len(lanes)
            if lanes[at].jobs:
                self._turn = at
                return lanes[at]
        return None


def _tell(loop: asyncio.AbstractEventLoop, pairs: list[tuple[asyncio.Future[Any], Any]]) -> None:
    try:
        loop.call_soon_threadsafe(_settle, pairs)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return


def _settle(pairs: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in pairs:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
