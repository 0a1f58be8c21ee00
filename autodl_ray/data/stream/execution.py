"""Running the work of a stream in order: as tasks of Ray, or in threads of this process where there is no Ray."""

from __future__ import annotations

import concurrent.futures
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Protocol

from autodl_ray.errors import AutoDLError, ResourceError

__all__ = [
    "STREAM_CPUS",
    "Call",
    "RayTasks",
    "Runner",
    "Threads",
    "fetch",
    "in_order",
    "ray_is_on",
    "runner_here",
]

STREAM_CPUS = 0.2
"""CPUs that must stay free of reservations where pictures are streamed: its tasks would wait for ever without."""

Call = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function and its arguments; of the arguments, those that a runner made are handed over as their values."""

_TASK_CPUS = 0.1
_MOST_LANES = 64
_STORE_SHARE = 0.25


def ray_is_on() -> bool:
    """Whether this process is connected to a Ray (which is not imported to find out)."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


class Runner(Protocol):
    """Runs functions beside the caller."""

    def share(self, value: Any) -> Any:
        """Store a value that many calls take; return what to hand over instead of it."""
        ...

    def warm(self, function: Callable[[], None]) -> None:
        """Let what will run calls import what ``function`` needs."""
        ...

    def submit(self, call: Call) -> Any:
        """Begin a call; return its handle."""
        ...

    def chain(self, calls: Sequence[Call]) -> list[Any]:
        """Begin many calls, of which few run at once; return what :func:`fetch` takes, or a call."""
        ...

    def lanes_beside(self, chained: Any) -> int:
        """Return how many may run at once beside a chain whose last call is ``chained`` (None: no chain)."""
        ...

    def settled(self, handles: Sequence[Any], *, wait: bool) -> set[Any]:
        """Return the handles whose calls have ended; ``wait`` until there is one."""
        ...

    def result(self, handle: Any) -> Any:
        """Wait for a call and return what it returned."""
        ...

    def ahead(self, item_bytes: int, *, sharers: int = 1) -> int:
        """Return how many results may lie in memory at once, when ``sharers`` processes do the same."""
        ...

    def close(self) -> None:
        """Let go of what runs."""
        ...


def runner_here() -> Runner:
    """Return Ray's tasks where this process is connected to a Ray, else threads."""
    return RayTasks() if ray_is_on() else Threads()


def in_order(runner: Runner, calls: Iterable[Call], *, ahead: int, beside: Any = None) -> Generator[Any, None, None]:
    """Yield the results of calls in their order.

    Args:
        runner: What runs them; closed at the end.
        calls: What to run.
        ahead: Most calls that have begun and whose results are not yet taken.
        beside: The last call of a chain, which runs first.
    """
    rest = iter(calls)
    waiting: deque[Any] = deque()
    running: list[Any] = []

    def refill(*, wait: bool = False) -> None:
        if running:
            ended = runner.settled(running, wait=wait)
            running[:] = [handle for handle in running if handle not in ended]
        lanes = runner.lanes_beside(beside)
        while len(running) < lanes and len(waiting) < ahead:
            call = next(rest, None)
            if call is None:
                return
            handle = runner.submit(call)
            waiting.append(handle)
            running.append(handle)

    try:
        refill()
        while waiting:
            while waiting[0] in running:
                refill(wait=True)
            result = runner.result(waiting.popleft())
            refill()
            yield result
            del result
    finally:
        runner.close()


def fetch(kept: Any) -> Any:
    """Return a value from what stands for it: a reference into the object store, or the value itself."""
    if not ray_is_on():
        return kept
    import ray

    return _got(kept) if isinstance(kept, ray.ObjectRef) else kept


class Threads:
    """Threads of this process; what is shared or chained is the value itself."""

    def __init__(self) -> None:
        self._lanes = max(1, min(8, os.cpu_count() or 1))
        self._pool = concurrent.futures.ThreadPoolExecutor(self._lanes, thread_name_prefix="stream")

    def share(self, value: Any) -> Any:
        """Return the value."""
        return value

    def warm(self, function: Callable[[], None]) -> None:
        """Nothing: this process has imported it."""

    def submit(self, call: Call) -> concurrent.futures.Future[Any]:
        """Begin a call."""
        function, arguments = call
        return self._pool.submit(function, *arguments)

    def chain(self, calls: Sequence[Call]) -> list[Any]:
        """Run the calls and return their results."""
        return list(self._pool.map(_apply, calls))

    def lanes_beside(self, chained: Any) -> int:
        """All of them: chains have ended when they return."""
        return self._lanes

    def settled(self, handles: Sequence[Any], *, wait: bool) -> set[Any]:
        """Return those that have ended."""
        if wait:
            return set(concurrent.futures.wait(handles, return_when=concurrent.futures.FIRST_COMPLETED).done)
        return {handle for handle in handles if handle.done()}

    def result(self, handle: concurrent.futures.Future[Any]) -> Any:
        """Wait for a call."""
        return handle.result()

    def ahead(self, item_bytes: int, *, sharers: int = 1) -> int:
        """A few more than run."""
        return self._lanes + 1

    def close(self) -> None:
        """Wait for the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class RayTasks:
    """Tasks of Ray: 0.1 CPU each, so that they fit beside training that reserves all but :data:`STREAM_CPUS`.

    Not Ray Data: in turns on the same two CPUs its executor made 990 and 1,230 photos a second where these tasks made
    1,570 and 2,780 (Ray 2.60, TrashNet; two runs), and it takes CPU from a training that is slower than the stream.
    What it gives (order, back-pressure, an end) is :func:`in_order`.
    """

    def __init__(self) -> None:
        import ray

        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        # One task at once for each CPU of the cluster, at least 2.
        self._lanes = max(2, min(_MOST_LANES, int(resources.get("CPU", 2))))
        self._remotes: dict[tuple[Any, int], Any] = {}
        self._tails: deque[Any] = deque([None] * (self._lanes // 2))

    def share(self, value: Any) -> Any:
        """Put a value into the object store."""
        import ray

        return ray.put(value)

    def submit(self, call: Call) -> Any:
        """Begin a task."""
        function, arguments = call
        return self._remote(_run, 1).remote(function, *arguments)

    def chain(self, calls: Sequence[Call]) -> list[Any]:
        """Begin all tasks now; each waits for one before it, so that they take half of the lanes.

        So the references exist at once and can be sent to other processes, and no thread has to feed the tasks.
        """
        refs = []
        for function, arguments in calls:
            ref, tail = self._remote(_run_after, 2).remote(function, self._tails.popleft(), *arguments)
            self._tails.append(tail)
            refs.append(ref)
        return refs

    def warm(self, function: Callable[[], None]) -> None:
        """Let the lanes that a chain leaves free begin to import what ``function`` needs."""
        for _ in range(self._lanes - len(self._tails)):
            self.submit((function, ()))

    def lanes_beside(self, chained: Any) -> int:
        """Half of them until the chain has ended: more tasks than CPUs would each start a process."""
        if chained is None or self.settled([chained], wait=False):
            return self._lanes
        return self._lanes - len(self._tails)

    def settled(self, handles: Sequence[Any], *, wait: bool) -> set[Any]:
        """Return those that have ended."""
        import ray

        # TypeError etc. of a task count as ended: result() raises them.
        most = 1 if wait else len(handles)
        ended, _ = ray.wait(list(handles), num_returns=most, timeout=None if wait else 0, fetch_local=False)
        return set(ended)

    def result(self, handle: Any) -> Any:
        """Wait for a task; its arrays are read-only views of the object store."""
        return _got(handle)

    def ahead(self, item_bytes: int, *, sharers: int = 1) -> int:
        """Two more than run, or what a quarter of the smallest node's object store holds."""
        fitting = int(_STORE_SHARE * smallest_store() / sharers // max(item_bytes, 1))
        return max(1, min(self._lanes + 2, fitting))

    def close(self) -> None:
        """Nothing: a task whose reference is gone ends within moments."""

    def _remote(self, function: Callable[..., Any], returns: int) -> Any:
        import ray

        if (function, returns) not in self._remotes:
            # Retried where a machine or a process is lost; a picture that breaks raises nothing. The strategy is
            # named so that a trial's tasks run beside its reservation, not in it: there is no room in it.
            made: Any = ray.remote(
                num_cpus=_TASK_CPUS, num_returns=returns, max_retries=3, scheduling_strategy="DEFAULT"
            )
            self._remotes[function, returns] = made(function)
        return self._remotes[function, returns]


def smallest_store() -> int:
    """Return the bytes of the object store of the node that has the smallest."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return int(min((node["object_store_memory"] for node in nodes if "object_store_memory" in node), default=2**30))


def _apply(call: Call) -> Any:
    function, arguments = call
    return function(*arguments)


def _run(function: Callable[..., Any], *arguments: Any) -> Any:
    import cv2

    cv2.setNumThreads(1)  # tasks run side by side: threads of each would only take turns
    return function(*arguments)


def _run_after(function: Callable[..., Any], _before: None, *arguments: Any) -> tuple[Any, None]:
    return _run(function, *arguments), None


def _got(handle: Any) -> Any:
    import ray

    try:
        return ray.get(handle)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, AutoDLError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        raise ResourceError(
            "Pictures that a task of Ray had made are lost.",
            seen=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            hint="was a machine or a process ended, or is memory short? Run the same line again: it goes on",
        ) from error
