"""A limit on the disk: what a run and its Ray write is measured, what may go is freed, else the run ends, all kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from autodl_ray.errors import StoreError
from autodl_ray.runtime.context import Context
from autodl_ray.runtime.ray_files import home_of_ray, remove_stale_folders

__all__ = ["DiskGuard", "Usage", "disk_guard", "measure"]

EVERY_S = 2.0
_SHARE_OF_TIME = 0.01  # that measuring may take
_CHECKPOINTS = frozenset({"last.pt", "last.prev.pt"})
_LATELY_S = 600.0
_DELIVERED = 4
"""Times its weights, rounded up, that a bundle takes: weights, ONNX and INT8 beside the one that it replaces."""
_MiB = 2**20

Freer = Callable[[], None]


@dataclass(frozen=True)
class Usage:
    """What lies in some folders.

    Attributes:
        total: Bytes on the disk, as ``du`` counts them: blocks, and a file with several names once.
        parts: Bytes by the folder that holds them, the largest first.
        checkpoint: Size of the largest checkpoint, in bytes.
        trainings: Checkpoints that were written lately: so many trainings run.
        weights: Size of the largest file of a model's weights, in bytes.
    """

    total: int
    parts: tuple[tuple[Path, int], ...]
    checkpoint: int = 0
    trainings: int = 0
    weights: int = 0

    def largest(self, count: int = 4) -> str:
        """Return the largest parts in one line."""
        return ", ".join(f"{path} {_size(size)}" for path, size in self.parts[:count])


def measure(folders: Sequence[Path]) -> Usage:
    """Add up what lies in the folders; what disappears meanwhile does not count."""
    by_folder: dict[Path, int] = {}
    seen: set[tuple[int, int]] = set()
    checkpoint = trainings = weights = 0
    lately = time.time() - _LATELY_S
    for folder in folders:
        for path, facts in _files(folder):
            if (facts.st_dev, facts.st_ino) in seen:
                continue
            seen.add((facts.st_dev, facts.st_ino))
            size = facts.st_blocks * 512
            parent = Path(os.path.dirname(path))
            by_folder[parent] = by_folder.get(parent, 0) + size
            name = os.path.basename(path)
            if name in _CHECKPOINTS:
                checkpoint = max(checkpoint, size)
                trainings += name == "last.pt" and facts.st_mtime > lately
            elif name.endswith(".safetensors"):
                weights = max(weights, size)
    parts = sorted(by_folder.items(), key=lambda item: -item[1])
    return Usage(sum(by_folder.values()), tuple(parts), checkpoint, trainings, weights)


@dataclass
class DiskGuard:
    """Watches over the disk that a run takes.

    Others write all the time, so it acts before the limit is reached: there has to be room for a checkpoint of each
    training that runs (a stop writes one beside what is there) and for one that is half written, for the next
    bundle, and for three times what was written between the last two looks.

    Attributes:
        limit: Most bytes that ``folders`` may take.
        folders: That count.
        freers: Called in this order, each only while it is not enough yet; the last ones cost the most.
        stop: Called when nothing more may go: asks the run to end.
        say: Told what was freed.
    """

    limit: int
    folders: tuple[Path, ...]
    freers: tuple[tuple[str, Freer], ...]
    stop: Callable[[], None]
    say: Callable[[str], None] = lambda line: None
    error: StoreError | None = None
    _last: int | None = None
    _growth: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def look(self) -> Usage:
        """Measure, free what may go when it is needed, and ask for the end when that is not enough."""
        usage = measure(self.folders)
        if self._last is not None:
            self._growth = max(self._growth // 2, usage.total - self._last, 0)
        if not self._fits(usage):
            usage = self._free(usage)
        self._last = usage.total
        if self.error is None and not self._fits(usage):
            self.error = self._too_much(usage)
            self.stop()
        return usage

    def check(self) -> None:
        """Raise what was found.

        Raises:
            StoreError: The limit was reached; nothing is lost.
        """
        if self.error is not None:
            raise self.error

    def run(self, every_s: float = EVERY_S) -> None:
        """Look again and again until :meth:`end`; measuring takes at most a hundredth of the time."""
        took = 0.0
        while not self._ended.wait(max(every_s, took / _SHARE_OF_TIME)):
            began = time.perf_counter()
            with contextlib.suppress(OSError):
                self.look()
            took = time.perf_counter() - began

    def end(self) -> None:
        """Let :meth:`run` return."""
        self._ended.set()

    def _room(self, usage: Usage) -> int:
        """Bytes that must stay free below the limit."""
        delivered = _DELIVERED * usage.weights
        return max((usage.trainings + 1) * usage.checkpoint, 3 * self._growth, delivered, self.limit // 20)

    def _free_on_disk(self) -> int:
        with contextlib.suppress(OSError, StopIteration):
            return shutil.disk_usage(next(folder for folder in self.folders if folder.exists())).free
        return self.limit

    def _fits(self, usage: Usage) -> bool:
        room = self._room(usage)
        return usage.total + room <= self.limit and min(room, self.limit) <= self._free_on_disk()

    def _free(self, usage: Usage) -> Usage:
        for what, free in self.freers:
            before = usage.total
            with contextlib.suppress(OSError):
                free()
            usage = measure(self.folders)
            if usage.total < before:
                self.say(f"the disk limit is near: {_size(before - usage.total)} of {what} deleted")
            if self._fits(usage):
                break
        return usage

    def _too_much(self, usage: Usage) -> StoreError:
        return StoreError(
            "The disk limit is reached, and nothing more may be deleted; the run ends, and all that it did is kept.",
            seen=f"{_size(usage.total)} of {_size(self.limit)} are taken ({usage.largest()}), "
            f"{_size(self._room(usage))} are needed for what comes next, {_size(self._free_on_disk())} are free on "
            "the disk",
            hint="give a larger --disk-limit or free some space, then run the same line again to go on",
        )


@contextmanager
def disk_guard(
    context: Context, *, say: Callable[[str], None] = lambda line: None, last_resort: Freer | None = None
) -> Iterator[DiskGuard | None]:
    """Keep the run and its Ray below ``context.disk_limit`` while the block runs; without a limit do nothing.

    Args:
        context: Of the run; its wish to stop is set when the limit cannot be kept.
        say: Told what was freed.
        last_resort: Frees what costs work to make again (checkpoints of paused trials).

    Raises:
        StoreError: The limit is below what is there already, or was reached; nothing is lost.
    """
    if context.disk_limit is None:
        yield None
        return
    store = Path(context.store.root)
    ray = home_of_ray(store)
    freers: list[tuple[str, Freer]] = [
        ("Ray's files of runs that have ended", lambda: remove_stale_folders(store)),
        ("Ray's logs of processes that have ended", lambda: _delete_old_logs(ray)),
        ("fall-back checkpoints", lambda: _delete_fallbacks(context.folder)),
    ]
    if last_resort is not None:
        freers.append(("checkpoints of paused trials", last_resort))
    guard = DiskGuard(context.disk_limit, (context.folder, ray), tuple(freers), context.stop.set, say)
    guard.look()
    if guard.error is not None:
        context.stop.clear()
        raise guard.error
    thread = threading.Thread(target=guard.run, name="autodl-disk", daemon=True)
    thread.start()
    try:
        yield guard
    except BaseException as error:
        # The wish to stop was ours: say why, instead of what came of it.
        if guard.error is not None and isinstance(error, Exception):
            raise guard.error from error
        raise
    finally:
        guard.end()
        thread.join(timeout=30.0)
    guard.check()


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        else:
                            yield entry.path, entry.stat(follow_symlinks=False)
        except OSError:
            continue


def _delete_old_logs(ray: Path) -> None:
    """Delete rotated logs, and logs whose name ends with the number of a process that is gone."""
    sessions = sorted(ray.glob("session_2*"), key=lambda path: path.stat().st_mtime)
    for session in sessions[:-1]:
        shutil.rmtree(session, ignore_errors=True)
    for session in sessions[-1:]:
        for log in session.glob("logs/**/*"):
            pid = log.stem.rsplit("-", 1)[-1].rsplit("_", 1)[-1]
            rotated = log.suffix[1:].isdigit()
            of_worker = log.name.startswith(("worker-", "python-core-worker-"))
            if log.is_file() and (rotated or (of_worker and pid.isdigit() and not psutil.pid_exists(int(pid)))):
                log.unlink(missing_ok=True)


def _delete_fallbacks(folder: Path) -> None:
    """Delete the checkpoint before the last one, where the last one is there."""
    for path in folder.rglob("last.prev.pt"):
        if path.with_name("last.pt").is_file():
            path.unlink(missing_ok=True)


def _size(count: int) -> str:
    return f"{count / _MiB:,.1f} MiB" if count < 1024 * _MiB else f"{count / 1024 / _MiB:,.2f} GiB"
