"""Sweeps without training: a formula gives the values, and trials end out of their order, early, or badly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from autodl_ray.spec import Choice, Domain, Float, Int
from autodl_ray.tune.contracts import Observed, Proposer, SearchContext
from autodl_ray.tune.proposers import make_proposer

EPOCHS = 9

SPACES: dict[str, dict[str, Domain]] = {
    "int": {"batch_size": Int(low=8, high=512)},
    "log float": {"lr": Float(low=1e-5, high=1e-1, log=True)},
    "choice": {"batch_size": Choice(values=tuple(range(8, 60)))},
    "conditional": {
        "optimizer": Choice(values=("sgd", "adamw")),
        "momentum": Float(low=0.0, high=0.99, when={"optimizer": ("sgd",)}),
        "weight_decay": Float(low=1e-6, high=1e-1, log=True, when={"optimizer": ("adamw",)}),
    },
    "mixed": {
        "augment": Choice(values=("none", "light", "strong")),
        "augment_magnitude": Float(low=0.0, high=1.0, when={"augment": ("light", "strong")}),
        "batch_size": Int(low=8, high=512, log=True),
        "lr": Float(low=1e-5, high=1e-1, log=True),
    },
}
BASELINE = {
    "augment": "light",
    "augment_magnitude": 0.5,
    "batch_size": 32,
    "lr": 1e-3,
    "momentum": 0.9,
    "optimizer": "sgd",
    "weight_decay": 1e-4,
}


def context_of(space: Mapping[str, Domain], *, seed: int = 0, num_samples: int = 24) -> SearchContext:
    """Return the context of a sweep whose baseline are the defaults of the searched fields."""
    baseline = {name: BASELINE[name] for name in space}
    return SearchContext(space, "max", seed, EPOCHS, baseline=baseline, num_samples=num_samples)


def score(params: Mapping[str, Any]) -> float:
    """Return a value that is best in the middle of every field."""
    value = 0.0
    for v in params.values():
        value -= (
            abs(v % 97 / 97 - 0.4) if isinstance(v, int) else abs(v - 0.02) if isinstance(v, float) else len(v) / 40
        )
    return round(value, 9)


def ended(number: int, params: Mapping[str, Any]) -> Observed:
    """Return how a trial ends: every seventh fails, of the others every third is stopped and every fifth paused."""
    status: Literal["finished", "stopped", "failed", "paused"] = "finished"
    if number % 7 == 6:
        status = "failed"
    elif number % 3 == 2:
        status = "stopped"
    elif number % 5 == 4:
        status = "paused"
    epochs = {"finished": EPOCHS, "stopped": 3, "paused": 1, "failed": 0}[status]
    final = score(params)
    values = tuple((epoch, final - 0.5**epoch) for epoch in range(1, epochs + 1))
    return Observed(number, params, status, values, values[-1][1] if values else None)


@dataclass(frozen=True)
class Step:
    """One proposal: what was known, and what came of it."""

    history: list[Observed]
    params: dict[str, Any] | None


def sweep(proposer: Proposer, count: int, *, at_once: int = 1) -> list[Step]:
    """Make ``count`` proposals; ``at_once`` trials run at a time, and the newest but one ends first."""
    history: list[Observed] = []
    running: list[int] = []
    steps: list[Step] = []
    for number in range(count):
        params = proposer.propose(number, 0, list(history))
        steps.append(Step(list(history), params))
        if params is None:
            break
        history.append(Observed(number, params, "running", (), None))
        running.append(number)
        if len(running) >= at_once:
            done = running.pop(max(0, len(running) - 2))
            history[done] = ended(done, history[done].params)
        if running and at_once > 1 and number % 4 == 3:  # one of those that run reports
            middle = history[running[0]]
            history[running[0]] = replace(middle, values=((1, -0.5),), value=-0.5)
    return steps


def made(search: str, space: Mapping[str, Domain], count: int, *, seed: int = 0, at_once: int = 1) -> list[Step]:
    """Make a proposer and run a sweep of it."""
    return sweep(make_proposer(search, context_of(space, seed=seed, num_samples=count)), count, at_once=at_once)
