"""One trial in its process: the launch of a training run with the trial's settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodl_ray.runtime.resources import ResourcePlan
from autodl_ray.train.result import CURVES
from autodl_ray.tune.bridge import TrialCall
from autodl_ray.tune.extension import CHECKPOINT

if TYPE_CHECKING:
    from autodl_ray.data.stream import StreamSource
    from autodl_ray.train.telemetry import LogConfig

__all__ = ["LaunchTrial"]


@dataclass(frozen=True)
class LaunchTrial:
    """Trains one trial; picklable, the same for all trials of a sweep.

    Attributes:
        source: The stream of batches.
        plan: Workers, CPUs and threads of a trial.
        head_init: Weights that the head starts with.
        log: Where live metrics go, with the key of the sweep.
        min_workers: With fewer workers a trial does not go on.
    """

    source: StreamSource
    plan: ResourcePlan
    head_init: Path | None
    log: LogConfig | None = None
    min_workers: int = 1

    def __call__(
        self,
        call: TrialCall,
        *,
        report: Callable[[Mapping[str, Any]], None],
        should_stop: Callable[[], bool],
        deadline: float | None,
    ) -> None:
        """Train, or go on from the checkpoint in the trial's folder."""
        import torch

        from autodl_ray.train.launch import launch

        _catch_up(call, report)
        # Ray sets one thread for less than two CPUs; a single training has the machine for itself.
        torch.set_num_threads(self.plan.threads_per_worker)
        resources = {"CPU": self.plan.cpus_per_worker}
        if self.plan.gpus_per_worker:
            resources["GPU"] = self.plan.gpus_per_worker
        launch(
            call.settings,
            self.source,
            folder=call.folder,
            num_workers=self.plan.num_workers,
            min_workers=self.min_workers,
            resources_per_worker=resources,
            report=report,
            may_wait=getattr(report, "may_wait", None),
            should_stop=should_stop,
            deadline=deadline,
            head_init=self.head_init,
            log=None if self.log is None else self.log.for_trial(self.log.key, call.trial, call.params),
        )


def _catch_up(call: TrialCall, report: Callable[[Mapping[str, Any]], None]) -> None:
    """Report the epoch that was saved but not written into the journal before a kill.

    The rows are written before the checkpoint: where that is older, or gone, a kill came between them. The training
    then goes back to what the checkpoint knows, its best weights too, and makes and reports the epoch again.
    """
    curves, checkpoint = call.folder / CURVES, call.folder / CHECKPOINT
    try:
        known = checkpoint.stat().st_mtime_ns >= curves.stat().st_mtime_ns
        rows = json.loads(curves.read_text()) if known else []
    except (OSError, ValueError):
        known, rows = False, []
    if not known:
        curves.unlink(missing_ok=True)
    for row in rows:
        if int(row["epoch"]) > call.known_epochs:
            report(row)
