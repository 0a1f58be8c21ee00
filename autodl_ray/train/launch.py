"""How a training is run: in this process when one worker is enough, else in a worker group that is started again."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from autodl_ray.errors import StageError
from autodl_ray.runtime import StopFlag
from autodl_ray.train.checkpoint import LAST
from autodl_ray.train.config import FitConfig
from autodl_ray.train.elastic import Attempt, Lost, Restarts
from autodl_ray.train.errors import WorkerLost
from autodl_ray.train.loop import fit
from autodl_ray.train.relay import Relay, Report, curves, so_far
from autodl_ray.train.result import FitResult
from autodl_ray.train.source import Source
from autodl_ray.train.telemetry import LogConfig
from autodl_ray.train.worker import GRACE_S, REPORTS, RESULT

__all__ = ["launch"]

_STOP, _RAY = ".stop", "ray"
_POLL_S = 0.1
_LATE_S = GRACE_S + 30.0  # the workers end themselves before that
_START_S = 10.0  # until a new group trains
_PLACE_S = 60.0  # for all workers to find a place, a node that comes back included


def launch(
    config: FitConfig,
    source: Source,
    *,
    folder: Path,
    num_workers: int,
    resources_per_worker: dict[str, float],
    report: Report,
    should_stop: Callable[[], bool],
    deadline: float | None = None,
    head_init: Path | None = None,
    min_workers: int = 1,
    patience_s: float = _PLACE_S,
    log: LogConfig | None = None,
    may_wait: Callable[[int], bool] | None = None,
) -> FitResult:
    """Run :func:`autodl_ray.train.loop.fit` with the workers that are wanted.

    Both ways run the same loop on the same global batches, and ``report`` is called in this thread, once an epoch,
    also for an epoch that a group finished just before it was lost.

    A group whose process or node is gone is started again from its last checkpoint, a few times, with as many workers
    as find a place; the batch stays the same. Where Ray ended a process because memory ran out, it goes on once with
    half the samples at a time. The notes of the result say so, and rows of later epochs have ``restarts``.

    Args:
        config: Of the training.
        source: Picklable when there is more than one worker.
        folder: Of this training alone; every worker has to see it.
        num_workers: 1: this process, with its torch threads as they are. More: one process each, on gloo (NCCL on
            GPUs), with as many threads as it has CPUs.
        resources_per_worker: ``CPU`` and ``GPU``; fractions work, a CPU of 0 does not.
        report: Called once an epoch; may raise to end the training.
        should_stop: Asked before every step (several workers: about ten times a second).
        deadline: Unix time by which this has returned.
        head_init: A fitted head to start from.
        min_workers: With fewer than that it does not go on.
        patience_s: How long a group that is started again waits for the place of all workers before it takes fewer
            (a first one waits a minute).
        log: Where live metrics go; None: into ``folder``.
        may_wait: See :func:`~autodl_ray.train.loop.fit`; a group of workers does not ask.

    Raises:
        WorkerLost: Workers were lost too often, or too few find a place; says nothing about the configuration.
        StageError: A worker failed; names the line and the log.
        AutoDLError: What the loop raised.
    """
    folder = folder.resolve()
    if num_workers == 1:
        return fit(
            config,
            source,
            folder=folder,
            report=report,
            should_stop=should_stop,
            deadline=deadline,
            head_init=head_init,
            log=log,
            may_wait=may_wait,
        )
    folder.mkdir(parents=True, exist_ok=True)
    stop = StopFlag(folder / _STOP)
    for leftover in (stop.path, folder / REPORTS, folder / RESULT):
        leftover.unlink(missing_ok=True)
    task = {
        "config": config,
        "source": source,
        "folder": folder,
        "stop": stop.path,
        "deadline": deadline,
        "head_init": None if head_init is None else head_init.resolve(),
        "num_threads": max(1, int(resources_per_worker.get("CPU", 1))),
        "log": log,
    }
    group = _Group(task, folder, resources_per_worker, min_workers=min_workers, patience_s=patience_s)
    restarts = Restarts(config.batch_size, num_workers, micro_batch=config.micro_batch_size)
    relay = Relay(folder, report, last=len(curves(folder)))
    return group.run(restarts, relay, stop=stop, should_stop=should_stop)


@dataclass
class _Group:
    """One training in groups of workers, one after the other until it is done."""

    task: dict[str, Any]
    folder: Path
    resources: dict[str, float]
    min_workers: int
    patience_s: float

    def run(self, restarts: Restarts, relay: Relay, *, stop: StopFlag, should_stop: Callable[[], bool]) -> FitResult:
        number = 0
        while True:
            attempt = self._attempt(restarts, should_stop)
            if attempt is None:
                return so_far(self.folder, restarts.notes)
            number += 1
            before = _saved_at(self.folder)
            lost = self._once(attempt, number, relay, stop=stop, should_stop=should_stop)
            if lost is None:
                result = FitResult.from_json(json.loads((self.folder / RESULT).read_text()))
                relay.catch_up(result.history)
                shutil.rmtree(self.folder / _RAY, ignore_errors=True)
                return replace(result, notes=(*restarts.notes, *result.notes))
            relay.catch_up(curves(self.folder))
            wait_s = restarts.after(lost, attempt, saved=_saved_at(self.folder) != before)
            logging.getLogger(__name__).warning("%s", restarts.notes[-1])
            relay.begin_again(len(restarts.notes))
            _pause(wait_s, should_stop)
            if self._too_late():
                if curves(self.folder):
                    return so_far(self.folder, restarts.notes)
                raise WorkerLost(
                    "No time is left to start the workers of the training again.",
                    seen=lost.reason,
                    hint="give more time (--budget); it goes on from the last checkpoint",
                )

    def _too_late(self) -> bool:
        deadline = self.task["deadline"]
        return deadline is not None and deadline - time.time() < _START_S

    def _attempt(self, restarts: Restarts, should_stop: Callable[[], bool]) -> Attempt | None:
        """Wait for a place; fewer workers than wanted are better than none. None: somebody wants to stop."""
        from autodl_ray.train.group import place

        placed = place(
            self.resources,
            wanted=restarts.wanted,
            least=min(self.min_workers, restarts.wanted),
            patience_s=self._patience(first=not restarts.notes),
            should_stop=should_stop,
        )
        if placed == 0 and should_stop():
            return None
        if placed == 0:
            raise WorkerLost(
                "There is no place for the workers of the training.",
                seen=f"{restarts.wanted} × {self.resources}; {restarts.notes[-1] if restarts.notes else 'first start'}",
                accepted=f"room for at least {self.min_workers} (train.min_workers)",
                hint="run the same line again when the nodes are back: it goes on from the last checkpoint",
            )
        if placed < restarts.wanted:
            restarts.notes.append(
                f"{placed} of {restarts.wanted} workers found a place: the training goes on with them, and the same "
                "batch"
            )
        return restarts.attempt(placed)

    def _patience(self, *, first: bool) -> float:
        deadline, wait_s = self.task["deadline"], max(self.patience_s, _PLACE_S) if first else self.patience_s
        return wait_s if deadline is None else max(5.0, min(wait_s, (deadline - time.time()) / 4))

    def _once(
        self, attempt: Attempt, number: int, relay: Relay, *, stop: StopFlag, should_stop: Callable[[], bool]
    ) -> Lost | None:
        """Run one group; None: the training is done or was stopped."""
        from autodl_ray.train.group import explain, make_trainer

        (self.folder / RESULT).unlink(missing_ok=True)
        config = replace(self.task["config"], micro_batch_size=attempt.micro_batch)
        trainer = make_trainer(
            {**self.task, "config": config},
            name=f"{self.folder.name}-{os.getpid()}-{number}",
            storage=self.folder / _RAY,
            num_workers=attempt.num_workers,
            resources=self.resources,
        )
        error = _watch(trainer, relay, stop=stop, should_stop=should_stop)
        if error is None:
            return None
        said = explain(error)
        if isinstance(said, Lost):
            return said
        raise said


class _Trainer(Protocol):
    def fit(self) -> object: ...


def _watch(trainer: _Trainer, relay: Relay, *, stop: StopFlag, should_stop: Callable[[], bool]) -> BaseException | None:
    """Let the group run in a thread; pass its reports on, and the wish to stop down. Return how it failed."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="autodl-train", daemon=True)
    stopped_at: float | None = None
    with _quick_polls():
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_POLL_S)
                if stopped_at is None and should_stop():
                    stop.set()
                    stopped_at = time.monotonic()
                relay.pass_on()
                if stopped_at is not None and time.monotonic() - stopped_at > _LATE_S:
                    raise StageError(
                        "The workers of the training did not end after the stop.",
                        seen=f"{_LATE_S:g} s",
                        hint="run the same line again to go on from the last checkpoint",
                    )
        except BaseException:
            stop.set()
            thread.join(GRACE_S)
            raise
    return failed[0] if failed else None


@contextmanager
def _quick_polls() -> Iterator[None]:
    """Let Ray Train look at its workers more often than every two seconds."""
    name = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
    before = os.environ.get(name)
    os.environ.setdefault(name, "0.1")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)


def _pause(seconds: float, should_stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not should_stop():
        time.sleep(_POLL_S)


def _saved_at(folder: Path) -> int:
    """Return what changes with every checkpoint."""
    try:
        return (folder / LAST).stat().st_mtime_ns
    except OSError:
        return 0
