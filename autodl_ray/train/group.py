"""A worker group of Ray Train: started, told to stop, and its end explained in our words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from autodl_ray.errors import AutoDLError, StageError
from autodl_ray.train.elastic import Lost
from autodl_ray.train.errors import is_out_of_memory
from autodl_ray.train.worker import LeftEarly, OutOfMemory, PeerGone, listen_for_sigterm, work

__all__ = ["explain", "make_trainer", "place"]

COLLECTIVE_TIMEOUT_S = 300
"""The longest that a worker waits for the others: rank 0 may be writing its checkpoint meanwhile."""


_FEWER_S = 5.0  # a place that is free is given at once, on a busy machine within seconds


@dataclass
class _GroupConfig(TorchConfig):
    """torch's process group, and workers that hear a SIGTERM."""

    @property
    def backend_cls(self) -> Any:
        return _Backend


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        super().on_start(worker_group, backend_config)
        worker_group.execute(listen_for_sigterm)  # in the main thread of each: the training has another


def make_trainer(
    task: dict[str, Any], *, name: str, storage: Path, num_workers: int, resources: dict[str, float]
) -> TorchTrainer:
    """Return the trainer of one attempt.

    Ray Train's own restarts are off: they know neither fewer workers than fit in fractions of a CPU nor a smaller
    micro-batch, and wait without a limit for a place. Its snapshot lies beside ours and is never read.
    """
    use_gpu = resources.get("GPU", 0) > 0
    return TorchTrainer(
        work,
        train_loop_config=task,
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu, resources_per_worker=resources),
        torch_config=_GroupConfig(backend="nccl" if use_gpu else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S),
        run_config=RunConfig(
            name=name,
            storage_path=str(storage),
            # (ray.train shows type checkers the class of its first version)
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=0, controller_failure_limit=0, max_preemption_failures=0
            ),
        ),
    )


def place(
    resources: dict[str, float], *, wanted: int, least: int, patience_s: float, should_stop: Callable[[], bool]
) -> int:
    """Return how many workers find a place now: ``wanted``, or fewer after ``patience_s``; 0: less than ``least``.

    A placement group is asked for and given back: the one answer of Ray's that counts fractions, other trials and
    nodes that are gone alike.

    Args:
        resources: Of one worker.
        wanted: Workers.
        least: Fewer than that are no answer.
        patience_s: How long to wait for all of them, a node that comes back included.
        should_stop: Whether to give up.
    """
    if _fits(resources, wanted, patience_s, should_stop):
        return wanted
    for count in range(min(wanted - 1, _at_most(resources)), least - 1, -1):
        if should_stop():
            return 0
        if _fits(resources, count, _FEWER_S, should_stop):
            return count
    return 0


def _at_most(resources: dict[str, float]) -> int:
    """Return how many workers the nodes that live could hold if nothing else ran; spares asking for more."""
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return min(int(total.get(name, 0.0) / amount + 1e-9) for name, amount in resources.items() if amount > 0)


def _fits(resources: dict[str, float], count: int, patience_s: float, should_stop: Callable[[], bool]) -> bool:
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([dict(resources) for _ in range(count)], strategy="PACK")
    waited = 0.0
    try:
        while waited < patience_s and not should_stop():
            step = min(0.5, patience_s - waited)
            if group.wait(step):
                return True
            waited += step
        return False
    finally:
        with contextlib.suppress(ray.exceptions.RayError):
            remove_placement_group(group)


def explain(error: BaseException) -> Lost | BaseException:
    """Return what became of the workers, or the error that is to be raised.

    What a worker raised comes first: when one fails, the others often lose their connection only because of it.
    """
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    causes = [_inner(failure) for failure in failures.values()] or [_inner(error)]
    for cause in causes:
        if isinstance(cause, AutoDLError):
            return cause
    # A process that is gone says why; its peers only say that it is.
    for cause in sorted(causes, key=lambda cause: isinstance(cause, PeerGone)):
        lost = _lost(cause)
        if lost is not None:
            return lost
    shown = causes[0]
    made = StageError(
        "A training worker failed.",
        seen=f"{type(shown).__name__}: {_last_line(shown)}",
        hint="the log of Ray has the whole traceback; run the same line again to go on from the last checkpoint",
    )
    made.__cause__ = error
    return made


def _inner(error: BaseException) -> BaseException:
    """Unpack what Ray Train wraps around the exception that says what happened."""
    for name in ("health_check_failure", "controller_failure", "_base_exc"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return _inner(inner)
    cause = getattr(error, "cause", None)  # of a RayTaskError
    return _inner(cause) if isinstance(cause, BaseException) else error


def _lost(cause: BaseException) -> Lost | None:
    if isinstance(cause, LeftEarly):
        return Lost(str(cause), warned=True)
    if isinstance(cause, PeerGone):
        return Lost(str(cause))
    if isinstance(cause, OutOfMemory):
        return Lost(str(cause), oom=True, settled=True)
    text = str(cause)
    kind = type(cause).__name__
    if is_out_of_memory(f"{kind} {text}"):
        return Lost("a worker was ended because the machine ran out of memory", oom=True)
    if isinstance(cause, ray.exceptions.RayError) and not isinstance(cause, ray.exceptions.RayTaskError):
        return Lost(f"a worker's process is gone ({kind}: {_last_line(cause)})")
    if kind in _STARTS or kind == "WorkerHealthCheckTimeoutError":
        return Lost(f"the workers could not be started ({kind})" if kind in _STARTS else "a worker no longer answers")
    return None


_STARTS = ("WorkerGroupStartupTimeoutError", "WorkerGroupStartupFailedError", "InsufficientClusterResourcesError")


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Ray goes on with everything that may have happened.
    return lines[-1].split(" Some common causes")[0][:200] if lines else "?"
