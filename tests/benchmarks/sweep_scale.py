"""Whether a sweep slows down as it grows: the cost of a trial near the 1,000th against that near the 100th.

    python -m tests.benchmarks.sweep_scale [--trials 1000] [--search random] [--scheduler asha] [--json]

A trial sleeps 1 ms for each of its up to 9 epochs and writes nothing; what is measured is everything else: Ray Tune on
2 CPUs, the journal, the proposer, the scheduler. Goals: the cost of a trial at 1,000 is at most 1.5 times that at 100
(medians of the time between ends, over 100 trials each), and the driver's memory grows by less than 10 % between them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from autodl_ray.runtime import StopFlag
from autodl_ray.runtime.cluster import ensure_ray, stop_ray
from autodl_ray.runtime.resources import plan_resources
from autodl_ray.spec import Domain, Float, Int
from autodl_ray.tune.bridge import TrialCall
from autodl_ray.tune.contracts import SearchContext
from autodl_ray.tune.engine import Engine
from autodl_ray.tune.journal import Journal
from autodl_ray.tune.place import TrialJob
from autodl_ray.tune.proposers import make_proposer
from autodl_ray.tune.ray_tune import run_trials
from autodl_ray.tune.schedulers import make_scheduler
from autodl_ray.tune.state import SweepState, TrialState

EPOCHS, WINDOW = 9, 100
SPACE: dict[str, Domain] = {"lr": Float(low=1e-4, high=1.0, log=True), "batch_size": Int(low=8, high=256, log=True)}


@dataclass(frozen=True)
class Sleep:
    """A training of 1 ms an epoch."""

    def __call__(
        self,
        call: TrialCall,
        *,
        report: Callable[[Mapping[str, Any]], None],
        should_stop: Callable[[], bool],
        deadline: float | None,
    ) -> None:
        """Train the epochs that are left."""
        for epoch in range(call.known_epochs + 1, EPOCHS + 1):
            time.sleep(0.001)
            accuracy = (1 - abs(call.settings["lr"] - 0.1)) * (1 - 0.5**epoch)
            report({"epoch": epoch, "accuracy": accuracy, "epoch_s": 0.001, "epochs_planned": EPOCHS})


def measure(folder: Path, *, trials: int, search: str, scheduler: str) -> dict[str, Any]:
    """Run the sweep; return seconds a trial and megabytes of the driver near the 100th trial and near the last."""
    ends: list[tuple[float, float]] = []
    process = psutil.Process()

    def on_end(_: TrialState) -> None:
        ends.append((time.monotonic(), process.memory_info().rss / 1e6))

    context = SearchContext(SPACE, "max", 0, EPOCHS, baseline={"lr": 0.01, "batch_size": 32}, num_samples=trials)
    with Journal(folder / "j.jsonl") as journal:
        engine = Engine(
            SweepState("accuracy", "max", make_scheduler(scheduler, context)),
            journal,
            make_proposer(search, context),
            SPACE,
            (context.baseline,),
            trials,
            EPOCHS,
        )
        began = time.monotonic()
        run_trials(
            engine,
            TrialJob(Sleep(), StopFlag(folder / "stop"), None),
            settings=dict,
            folder=folder / "work",
            plan=plan_resources(cpus=2, num_samples=trials),
            on_tick=lambda: None,
            on_end=on_end,
        )
    early, late = ends[WINDOW // 2 : WINDOW * 3 // 2], ends[-WINDOW:]
    return {
        "trials": len(ends),
        "epochs": sum(t.epochs for t in engine.state.trials.values()),
        "seconds": round(time.monotonic() - began, 2),
        "trial_s_at_100": round(_between(early), 5),
        "trial_s_at_end": round(_between(late), 5),
        "ratio": round(_between(late) / _between(early), 2),
        "driver_mb": [round(early[-1][1], 1), round(late[-1][1], 1)],
    }


def _between(ends: list[tuple[float, float]]) -> float:
    """Seconds from one end to the next: a median of means of ten, since a trial may have one epoch or nine."""
    moments = [moment for moment, _ in ends][::10]
    return statistics.median((b - a) / 10 for a, b in itertools.pairwise(moments))


def main() -> None:
    """Print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--search", default="random")
    parser.add_argument("--scheduler", default="asha")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        ensure_ray(Path(name), num_cpus=2, num_gpus=0, object_store_bytes=200 * 2**20)
        found = measure(Path(name), trials=given.trials, search=given.search, scheduler=given.scheduler)
        stop_ray()
    if given.json:
        print(json.dumps(found, indent=1))
        return
    for key, value in found.items():
        print(f"{key:>16}  {value}")


if __name__ == "__main__":
    main()
