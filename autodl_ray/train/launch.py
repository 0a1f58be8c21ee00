"""How a training is run: in this process when one worker is enough, else in a worker group of Ray Train."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from autodl_ray.artifacts import write_atomic
from autodl_ray.errors import AutoDLError, StageError
from autodl_ray.runtime import StopFlag
from autodl_ray.train.config import FitConfig
from autodl_ray.train.loop import fit
from autodl_ray.train.result import FitResult
from autodl_ray.train.source import Source

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

__all__ = ["launch"]

_REPORTS, _RESULT, _STOP, _RAY = "reports.jsonl", "result.json", ".stop", "ray"
_POLL_S = 0.1
_GRACE_S = 120.0  # for the workers to save and end after a stop

Report = Callable[[dict[str, Any]], None]


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
) -> FitResult:
    """Run :func:`autodl_ray.train.loop.fit` with the workers that are wanted.

    Both ways run the same loop on the same global batches, and ``report`` is called in this thread.

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

    Raises:
        StageError: A worker failed.
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
        )
    folder.mkdir(parents=True, exist_ok=True)
    stop = StopFlag(folder / _STOP)
    for leftover in (stop.path, folder / _REPORTS, folder / _RESULT):
        leftover.unlink(missing_ok=True)
    task = {
        "config": config,
        "source": source,
        "folder": folder,
        "deadline": deadline,
        "head_init": None if head_init is None else head_init.resolve(),
        "num_threads": max(1, int(resources_per_worker.get("CPU", 1))),
    }
    trainer = _trainer(task, folder, num_workers, resources_per_worker)
    _watch(trainer, folder, stop=stop, report=report, should_stop=should_stop)
    return FitResult.from_json(json.loads((folder / _RESULT).read_text()))


def _trainer(task: dict[str, Any], folder: Path, num_workers: int, resources: dict[str, float]) -> TorchTrainer:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    use_gpu = resources.get("GPU", 0) > 0
    return TorchTrainer(
        _worker,
        train_loop_config=task,
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu, resources_per_worker=resources),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        # Ray Train's own snapshot lies beside ours and is never read: the loop resumes from last.pt.
        run_config=RunConfig(
            name=f"{folder.name}-{os.getpid()}",
            storage_path=str(folder / _RAY),
            failure_config=FailureConfig(max_failures=0),
        ),
    )


def _worker(task: dict[str, Any]) -> None:
    """Run the loop as one worker of the group."""
    import ray.train
    import ray.train.torch

    from autodl_ray.train.peers import Group

    folder: Path = task["folder"]
    peers = Group(ray.train.torch.get_device())

    def report(row: dict[str, Any]) -> None:
        with (folder / _REPORTS).open("a") as stream:
            stream.write(json.dumps(row) + "\n")

    result = fit(
        task["config"],
        task["source"],
        folder=folder,
        report=report,
        should_stop=StopFlag(folder / _STOP).is_set,
        deadline=task["deadline"],
        head_init=task["head_init"],
        num_threads=task["num_threads"],
        peers=peers,
    )
    if peers.rank == 0:
        write_atomic(folder / _RESULT, json.dumps(result.to_json()))


class _Trainer(Protocol):
    def fit(self) -> object: ...


def _watch(trainer: _Trainer, folder: Path, *, stop: StopFlag, report: Report, should_stop: Callable[[], bool]) -> None:
    """Let the group run in a thread; pass its reports on, and the wish to stop down."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="autodl-train", daemon=True)
    seen = 0
    with _quick_polls():
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_POLL_S)
                if should_stop():
                    stop.set()
                seen = _pass_on(folder, seen, report)
            _pass_on(folder, seen, report)
        except BaseException:
            stop.set()
            thread.join(_GRACE_S)
            raise
    if failed:
        raise _cause(failed[0])


def _pass_on(folder: Path, seen: int, report: Report) -> int:
    path = folder / _REPORTS
    text = path.read_text() if path.exists() else ""
    rows = text[: text.rfind("\n") + 1].splitlines()
    for row in rows[seen:]:
        report(json.loads(row))
    return len(rows)


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


def _cause(error: BaseException) -> BaseException:
    """Return the error of ours that a worker raised, or one that names the worker's."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        inner = getattr(failure, "cause", None) or failure
        if isinstance(inner, AutoDLError):
            return inner
    shown = next(iter(failures.values()), error)
    made = StageError(
        "A training worker failed.",
        seen=f"{type(shown).__name__}: {(str(shown).strip() or '?').splitlines()[-1]}",
        hint="the log has the whole traceback; run the same line again to go on from the last epoch",
    )
    made.__cause__ = error
    return made
