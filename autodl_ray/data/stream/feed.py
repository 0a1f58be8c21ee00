"""Running an iterator in a thread of its own, a few items ahead of who takes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["Feed"]

T = TypeVar("T")


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class _End:
    pass


class Feed(Generic[T]):
    """An iterator that is worked off in a thread, started at once.

    Args:
        make: Called in the thread; returns the iterator.
        depth: Most items that wait to be taken.
    """

    def __init__(self, make: Callable[[], Iterator[T]], *, depth: int) -> None:
        self._queue: queue.Queue[T | _Raised | _End] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=_work, args=(make, self._queue, self._stop), name="feed", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._stop.is_set():
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, _End):
            self._stop.set()
            raise StopIteration
        if isinstance(item, _Raised):
            self._stop.set()
            raise item.error
        return item

    def close(self) -> None:
        """End the thread, and what it iterates; wait for it for a moment."""
        self._stop.set()
        self._thread.join(timeout=10)

    def __del__(self) -> None:
        self._stop.set()


def _work(make: Callable[[], Iterator[T]], out: queue.Queue[T | _Raised | _End], stop: threading.Event) -> None:
    # A plain function: the thread must not keep the Feed alive, which ends the thread when it is forgotten.
    items: Iterator[T] | None = None
    try:
        items = make()
        for item in items:
            if not _put(item, out, stop):
                return
        _put(_End(), out, stop)
    except BaseException as error:  # whatever it is, it belongs to who takes the items
        _put(_Raised(error), out, stop)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _put(item: T | _Raised | _End, out: queue.Queue[T | _Raised | _End], stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            out.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
