"""How the machine is shared out: trials at once and CPUs each, or a refusal before anything starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autodl_ray.errors import ResourceError

__all__ = ["ResourcePlan", "Shares", "plan_resources"]

# Ray Data and the drivers of worker groups must always find a CPU share: reserving every CPU makes them wait for ever.
_RESERVED_SHARE = 0.1
_LEAST_WORKER_CPUS = 0.25
_GROUP_DRIVER_CPUS = 0.05
# A process that trains holds about 350 MB before it has made anything; until a trial was seen, 1 GB are allowed for it.
_LEAST_TRIAL_MB = 400.0
_GUESSED_TRIAL_MB = 1000.0
_MOST_ON_A_GPU = 4
_GPU_RESERVE = 0.1


@dataclass(frozen=True)
class ResourcePlan:
    """How the machine is shared out.

    Attributes:
        num_samples: Trials in all.
        trials_at_once: Trials that run side by side.
        num_workers: Training workers of one trial.
        cpus_per_trial: CPUs that the trial's own process reserves.
        cpus_per_worker: CPUs that each worker reserves (with one worker: the trial's own process).
        gpus_per_worker: GPUs that each worker reserves.
        threads_per_worker: Compute threads of each worker.
        free_cpus: CPUs that stay free for data tasks while all trials run.
        total_cpus: CPUs of the cluster.
        memory_mb: Memory that trials may hold, all together; None: not known.
        gpu_memory_mb: Memory of one GPU; None: not known.
        shares_gpu: Whether several trials may share the GPU; how many is known when the first was seen.
    """

    num_samples: int
    trials_at_once: int
    num_workers: int
    cpus_per_trial: float
    cpus_per_worker: float
    gpus_per_worker: float
    threads_per_worker: int
    free_cpus: float
    total_cpus: float
    memory_mb: float | None = None
    gpu_memory_mb: float | None = None
    shares_gpu: bool = False

    @property
    def begins_with(self) -> int:
        """Trials that run side by side before it is known what one of them holds."""
        return 1 if self.shares_gpu else self.trials_at_once

    def within(self, *, rss_mb: float | None, gpu_mb: float | None) -> int:
        """Return how many trials run side by side when one of them holds so much; at least one.

        Args:
            rss_mb: Most resident memory of a trial's process; None: not known.
            gpu_mb: Memory that one trial takes of its GPU; None: not known.
        """
        fits = self.trials_at_once
        if rss_mb and self.memory_mb is not None:
            fits = min(fits, math.floor(self.memory_mb / (rss_mb * self.num_workers)))
        if self.shares_gpu:
            on_gpu = 1
            if gpu_mb and self.gpu_memory_mb is not None:
                on_gpu = math.floor(self.gpu_memory_mb * (1 - _GPU_RESERVE) / gpu_mb)
            fits = min(fits, on_gpu)
        return max(1, fits)

    def line(self) -> str:
        """Return the plan as one line, e.g. ``8 trials, 2 at a time × 1 worker × 0.9 CPU of 2``."""
        trials = f"{self.num_samples} trial{'s' * (self.num_samples != 1)}"
        most = "up to " if self.shares_gpu else ""
        at_once = f", {most}{self.trials_at_once} at a time" if self.num_samples > 1 else ""
        workers = f"{self.num_workers} worker{'s' * (self.num_workers != 1)}"
        gpus = f" + {self.gpus_per_worker:g} GPU" if self.gpus_per_worker else ""
        return f"{trials}{at_once} × {workers} × {self.cpus_per_worker:g} CPU{gpus} of {self.total_cpus:g}"


def plan_resources(
    *,
    cpus: float,
    gpus: float = 0.0,
    num_samples: int,
    num_workers: int = 1,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    max_concurrent_trials: int | None = None,
    stream_cpus: float = 0.0,
    memory_mb: float | None = None,
    gpu_memory_mb: float | None = None,
) -> ResourcePlan:
    """Share the cluster out among the trials; a pure function.

    Args:
        cpus: CPUs of the cluster.
        gpus: GPUs of the cluster.
        num_samples: Trials in all.
        num_workers: Training workers of one trial.
        cpus_per_worker: CPUs of each; None: an equal share of what there is.
        gpus_per_worker: GPUs of each; None: 1 where there are enough for one trial, else 0.
        max_concurrent_trials: Most trials at once; None: as many as fit.
        stream_cpus: CPUs that must stay free for the data tasks of the whole sweep.
        memory_mb: Memory that trials may hold, all together; None: not known.
        gpu_memory_mb: Memory of one GPU; where it is known, trials of a sweep may share a single GPU.

    Raises:
        ResourceError: Not even one trial fits beside its data tasks or into the memory, or more GPUs are asked for
            than there are.
    """
    gpu_share = _gpu_share(gpus, num_workers, gpus_per_worker)
    # Ray puts fractions on the first GPU until it is full, so with several GPUs each trial has its own.
    shares_gpu = gpus == gpu_share * num_workers == 1 and gpus_per_worker is None and num_samples > 1
    shares_gpu = shares_gpu and gpu_memory_mb is not None
    if shares_gpu:
        gpu_share = 1 / _MOST_ON_A_GPU
    group = num_workers > 1
    usable = min(cpus * (1 - _RESERVED_SHARE), cpus - stream_cpus)
    least = cpus_per_worker if cpus_per_worker is not None else _LEAST_WORKER_CPUS
    per_trial = num_workers * least + (_GROUP_DRIVER_CPUS if group else 0.0)
    # A share that was given may take the reserve too, as long as no data task needs it.
    limit = cpus - stream_cpus if cpus_per_worker is not None else usable
    if per_trial > limit + 1e-9:
        raise _too_small(cpus, num_workers=num_workers, least=least, stream_cpus=stream_cpus)
    fitting = math.floor(limit / per_trial + 1e-9)
    if cpus_per_worker is None:  # one whole CPU a worker where there are enough
        fitting = max(1, min(fitting, math.floor(cpus / num_workers)))
    if gpu_share:
        fitting = min(fitting, math.floor(gpus / (gpu_share * num_workers) + 1e-9))
    at_once = max(1, min(fitting, num_samples, max_concurrent_trials or fitting))
    if memory_mb is not None:
        at_once = _within_memory(at_once, memory_mb, num_workers)
    if cpus_per_worker is None:
        share = (usable / at_once - (_GROUP_DRIVER_CPUS if group else 0.0)) / num_workers
        share = math.floor(share * 100 + 1e-9) / 100
    else:
        share = cpus_per_worker
    driver = _GROUP_DRIVER_CPUS if group else share
    used = at_once * (driver + (num_workers * share if group else 0.0))
    return ResourcePlan(
        num_samples=num_samples,
        trials_at_once=at_once,
        num_workers=num_workers,
        cpus_per_trial=driver,
        cpus_per_worker=share,
        gpus_per_worker=gpu_share,
        threads_per_worker=max(1, round(share)),
        free_cpus=round(cpus - used, 6),
        total_cpus=cpus,
        memory_mb=memory_mb,
        gpu_memory_mb=gpu_memory_mb,
        shares_gpu=shares_gpu and at_once > 1,
    )


class Shares:
    """How many trials run side by side, by what the trials so far held."""

    def __init__(self, plan: ResourcePlan) -> None:
        self._plan = plan
        self._rss_mb: float | None = None
        self._gpu_mb: float | None = None
        self.at_once = plan.begins_with

    def seen(self, row: Mapping[str, Any]) -> str | None:
        """Take in what an epoch reported (``rss_mb``, ``gpu_memory_mb``).

        Returns:
            A line for people when the number of trials changes.
        """
        if not row.get("rss_mb") and not row.get("gpu_memory_mb"):
            return None
        self._rss_mb = max(self._rss_mb or 0.0, float(row.get("rss_mb") or 0.0))
        if self._gpu_mb is None and row.get("gpu_memory_mb"):  # of all processes: only the first trial is alone
            self._gpu_mb = float(row["gpu_memory_mb"])
        before, self.at_once = self.at_once, self._plan.within(rss_mb=self._rss_mb, gpu_mb=self._gpu_mb)
        if before == self.at_once:
            return None
        held = f"{self._rss_mb / 1000:.1f} GB of {(self._plan.memory_mb or 0.0) / 1000:.1f}"
        gpu = f", {self._gpu_mb / 1000:.1f} GB of the GPU" if self._gpu_mb else ""
        return f"{self.at_once} trial{'s' * (self.at_once != 1)} at a time: one holds {held}{gpu}"


def _within_memory(at_once: int, memory_mb: float, num_workers: int) -> int:
    if memory_mb < _LEAST_TRIAL_MB * num_workers:
        raise ResourceError(
            "One trial does not fit into the memory.",
            seen=f"{memory_mb:.0f} MB free for {num_workers} worker{'s' * (num_workers != 1)}",
            accepted=f"at least {_LEAST_TRIAL_MB:.0f} MB a worker",
            hint="end other programs, lower train.num_workers, or use a machine with more memory",
        )
    return max(1, min(at_once, math.floor(memory_mb / (_GUESSED_TRIAL_MB * num_workers))))


def _gpu_share(gpus: float, num_workers: int, wanted: float | None) -> float:
    if wanted is None:
        return 1.0 if gpus >= num_workers else 0.0
    if wanted * num_workers > gpus:
        raise ResourceError(
            "The trials ask for more GPUs than there are.",
            seen=f"{num_workers} workers × {wanted:g} GPU, on {gpus:g} GPU",
            accepted=f"up to {gpus:g} GPU a trial",
            hint="lower train.gpus_per_worker or train.num_workers",
        )
    return wanted


def _too_small(cpus: float, *, num_workers: int, least: float, stream_cpus: float) -> ResourceError:
    data = f" + {stream_cpus:g} CPU for data tasks" if stream_cpus else ""
    free = max(0.0, cpus - stream_cpus)
    return ResourceError(
        "One trial does not fit on the cluster, and would wait for ever.",
        seen=f"{num_workers} worker{'s' * (num_workers != 1)} × {least:g} CPU{data}, on {cpus:g} CPU",
        accepted=f"at most {free:g} CPU for the workers of a trial",
        hint="lower train.num_workers or train.cpus_per_worker, or use a machine with more CPUs",
    )
