"""One worker of a training group: the loop with its peers, and what it leaves behind when it cannot go on."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from autodl_ray.artifacts import write_atomic
from autodl_ray.errors import AutoDLError, StageError
from autodl_ray.runtime import StopFlag

__all__ = ["GRACE_S", "REPORTS", "RESULT", "LeftEarly", "OutOfMemory", "PeerGone", "listen_for_sigterm", "work"]

REPORTS, RESULT = "reports.jsonl", "result.json"

GRACE_S = 120.0
"""How long the workers have after a stop, or past the deadline, to save and to end; then they are ended."""

_WORTH_WAITING_S = 5.0
_LEAVING = threading.Event()  # of this process: that a signal came concerns all of it


class PeerGone(Exception):
    """Another worker no longer answers."""


class OutOfMemory(Exception):
    """Memory ran out in a worker, which wrote down how much it tries the next time."""


class LeftEarly(Exception):
    """The workers saved and ended because one of them was told to leave."""


def listen_for_sigterm() -> None:
    """Take a SIGTERM as the wish to save and to end; to be called in the process's main thread.

    It is what a machine sends that will be taken away soon. Ray's own handler would end the process at once.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        _LEAVING.set()

    signal.signal(signal.SIGTERM, leave)


def work(task: dict[str, Any]) -> None:
    """Run the loop as one worker of the group.

    Args:
        task: What :func:`autodl_ray.train.launch.launch` was given, as far as it concerns a worker.

    Raises:
        AutoDLError: What the loop raised; for anything else a StageError that names the line and the log.
        PeerGone: The connection to another worker broke.
        OutOfMemory: Memory ran out in the middle; the next group begins with smaller micro-batches.
        LeftEarly: A worker was told to leave; the training is saved.
    """
    import ray.train

    from autodl_ray.train.micro import is_out_of_memory

    rank = ray.train.get_context().get_world_rank()
    stop = StopFlag(task["stop"])
    try:
        with _ended_in_time(stop, task["deadline"]):
            status = _train(task, stop, rank)
    except AutoDLError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"memory ran out in a worker ({str(error).splitlines()[0][:160]})") from error
        if _is_of_the_network(error):
            # The controller asks the workers in turn: let it see first that the other process is gone, and why.
            time.sleep(_WORTH_WAITING_S)
            raise PeerGone(f"another worker is gone ({str(error).splitlines()[0][:160]})") from error
        raise _explained(error, task["folder"], rank) from error
    if status == "stopped" and not stop.is_set():
        raise LeftEarly("a worker was told to leave (SIGTERM, or its node is drained)")


def _train(task: dict[str, Any], stop: StopFlag, rank: int) -> str:
    import ray.train
    import ray.train.torch

    from autodl_ray.train.loop import fit
    from autodl_ray.train.peers import Alone, Group

    folder: Path = task["folder"]
    device = ray.train.torch.get_device()
    # One that is left alone may cut its batches into slices (train/slices.py), as a training in one process does.
    alone = ray.train.get_context().get_world_size() == 1
    peers = Alone(_is_leaving) if alone else Group(device, _is_leaving)

    def report(row: dict[str, Any]) -> None:
        with (folder / REPORTS).open("a") as stream:
            stream.write(json.dumps(row) + "\n")

    result = fit(
        task["config"],
        task["source"],
        folder=folder,
        report=report,
        should_stop=stop.is_set,
        deadline=task["deadline"],
        head_init=task["head_init"],
        num_threads=task["num_threads"],
        peers=peers,
        log=task.get("log"),
    )
    if rank == 0:
        write_atomic(folder / RESULT, json.dumps(result.to_json()))
    return result.status


def _is_leaving() -> bool:
    """Whether this process was told to leave, or Ray has announced the end of a node of the group.

    Ray's public question is a barrier of all workers; what it would answer is looked at here, and the loop's vote
    spreads it.
    """
    if _LEAVING.is_set():
        return True
    try:
        from ray.train.v2._internal.execution.context import get_train_context

        return get_train_context().preemption_context.preemption_info is not None
    except (ImportError, AttributeError, RuntimeError):
        return False


@contextmanager
def _ended_in_time(stop: StopFlag, deadline: float | None) -> Iterator[None]:
    """End this process when it still works long after a stop or the deadline: nothing may wait for ever."""
    done = threading.Event()

    def watch() -> None:
        since: float | None = None
        while not done.wait(1.0):
            over = stop.is_set() or (deadline is not None and time.time() > deadline)
            since = (since or time.monotonic()) if over else None
            if since is not None and time.monotonic() - since > GRACE_S:
                os._exit(1)

    thread = threading.Thread(target=watch, name="autodl-in-time", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def _is_of_the_network(error: Exception) -> bool:
    import torch.distributed as dist

    if isinstance(error, dist.DistError):
        return True
    words = ("gloo", "connection closed by peer", "connection reset", "nccl", "broken pipe")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def _explained(error: Exception, folder: Path, rank: int) -> StageError:
    """Write the traceback down beside the checkpoints, and say where it happened."""
    log = folder / f"error-rank-{rank}.txt"
    log.write_text("".join(traceback.format_exception(error)))
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return StageError(
        "A training worker failed.",
        seen=f"{type(error).__name__}: {error}{where}",
        hint=f"the whole traceback is in {log}; run the same line again to go on from the last checkpoint",
    )
