"""A sweep without Ray: trials are trained one after the other by a formula, in epochs that take no time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autodl_ray.spec import Choice, Domain, Float, Int
from autodl_ray.tune.contracts import SearchContext
from autodl_ray.tune.engine import Engine
from autodl_ray.tune.journal import Journal, read_journal
from autodl_ray.tune.proposers import make_proposer
from autodl_ray.tune.schedulers import Goal, make_scheduler
from autodl_ray.tune.state import SweepState, TrialState

EPOCHS = 9
SPACE: dict[str, Domain] = {
    "lr": Float(low=1e-4, high=1.0, log=True),
    "batch_size": Int(low=8, high=256, log=True),
    "optimizer": Choice(values=("adamw", "sgd")),
}
DEFAULTS = {"batch_size": 32, "lr": 0.5, "optimizer": "adamw"}


class Killed(Exception):
    """The driver was killed here."""


def accuracy(params: Mapping[str, Any], epoch: int) -> float:
    """Rise with the epochs towards a value that the params decide."""
    distance = abs(math.log10(params["lr"]) + 2) / 4 + abs(math.log2(params["batch_size"]) - 5) / 10
    return round((1 - distance - 0.1 * (params["optimizer"] == "sgd")) * (1 - 0.5**epoch), 6)


def opened(
    journal: Journal,
    path: Path,
    *,
    num_samples: int,
    search: str = "tpe",
    seed: int = 0,
    scheduler: str = "asha",
    patience: int = 0,
    goal: Goal | None = None,
    space: Mapping[str, Domain] | None = None,
    defaults: Mapping[str, Any] | None = None,
    deadline: float | None = None,
) -> Engine:
    """Make the engine of a journal, as the stage does."""
    space = SPACE if space is None else space
    defaults = DEFAULTS if defaults is None else defaults
    context = SearchContext(space, "max", seed, EPOCHS, baseline=defaults, num_samples=num_samples)
    rule = make_scheduler(scheduler, context, patience=patience)
    state = SweepState("accuracy", "max", rule).fold(read_journal(path))
    engine = Engine(
        state,
        journal,
        make_proposer(search, context),
        space,
        (defaults,),
        num_samples,
        EPOCHS,
        deadline,
        goal,
    )
    engine.settle()
    return engine


def train_all(
    engine: Engine,
    *,
    score: Callable[[Mapping[str, Any], int], float] = accuracy,
    kill_after: float = math.inf,
    trained: list[tuple[str, int]] | None = None,
    slots: int = 1,
) -> None:
    """Train every trial of the engine, ``slots`` side by side; raise :class:`Killed` after so many epochs.

    The places take turns: each trains one epoch of its trial, or begins another trial.
    """
    epochs, places = 0, list[TrialState]()
    while True:
        while len(places) < slots and (begun := engine.next_trial()) is not None:
            places.append(begun)
        if not places:
            return
        trial = places.pop(0)
        if epochs >= kill_after:
            raise Killed
        epochs += 1
        epoch = trial.epochs + 1
        if trained is not None:
            trained.append((trial.id, epoch))
        goes_on = engine.report(trial.id, {"epoch": epoch, "accuracy": score(trial.params, epoch)})
        if goes_on and epoch < EPOCHS:
            places.insert(0 if slots == 1 else len(places), trial)
        elif goes_on:
            engine.ended(trial.id)
