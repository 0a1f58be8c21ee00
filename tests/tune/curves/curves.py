"""Sweeps of formulas through the shipped engine, whose journal is a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from autodl_ray.spec.domains import Choice, Domain, Float, Int
from autodl_ray.tune.contracts import SearchContext
from autodl_ray.tune.engine import Engine
from autodl_ray.tune.journal import Journal
from autodl_ray.tune.proposers import make_proposer
from autodl_ray.tune.schedulers import make_scheduler
from autodl_ray.tune.state import SweepState

Value = Callable[[Mapping[str, Any], int], float]

MIXED: dict[str, Domain] = {
    "lr": Float(low=1e-4, high=1.0, log=True),
    "batch_size": Int(low=8, high=256, log=True),
    "optimizer": Choice(values=("adamw", "sgd")),
    "momentum": Float(low=0.0, high=0.99, when={"optimizer": ("sgd",)}),
}


def run(
    context: SearchContext,
    value: Value,
    *,
    search: str = "curves",
    scheduler: str = "freeze_thaw",
    events: list[Mapping[str, Any]] | None = None,
    stop_after: int | None = None,
) -> tuple[SweepState, list[Mapping[str, Any]]]:
    """Run a sweep (on from ``events``), one trial at a time, until it ends or so many events are known."""
    known = list(events or [])
    state = SweepState("accuracy", context.mode, make_scheduler(scheduler, context)).fold(known)
    engine = Engine(
        state=state,
        journal=cast(Journal, known),
        proposer=make_proposer(search, context),
        space=context.space,
        first=(context.baseline,) if context.baseline else (),
        num_samples=context.num_samples,
        epochs=context.epochs,
    )
    engine.settle()
    while (stop_after is None or len(known) < stop_after) and (trial := engine.next_trial()) is not None:
        while stop_after is None or len(known) < stop_after:
            epoch = trial.epochs + 1
            goes_on = engine.report(trial.id, {"epoch": epoch, "accuracy": value(trial.params, epoch)})
            if goes_on and epoch >= context.epochs:
                engine.ended(trial.id)
            if not goes_on or epoch >= context.epochs:
                break
    return state, known
