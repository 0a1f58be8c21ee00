"""Sweeps over the LCBench surrogate: the shipped engine and strategies, with trainings that are looked up."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from autodl_ray.seeding import rng_for, seed_for
from autodl_ray.spec.domains import Domain, Float, Int
from autodl_ray.tune.contracts import EarlierSweep, SearchContext
from autodl_ray.tune.engine import Engine
from autodl_ray.tune.journal import Journal
from autodl_ray.tune.proposers import make_proposer
from autodl_ray.tune.schedulers import make_scheduler
from autodl_ray.tune.space import draw
from autodl_ray.tune.state import SweepState, TrialState

EPOCHS, REFERENCE_EPOCHS = 50, 2500
GRID = (1, 2, 3, 5, 7, 10, 15, 20, 30, *range(50, REFERENCE_EPOCHS + 1, 50))


@dataclass(frozen=True)
class Cell:
    """One search: a combination on one task with one seed."""

    combination: str
    task: str
    seed: int
    workers: int

    @property
    def name(self) -> str:
        """A text that no other cell has."""
        return f"{self.combination}/{self.task}/{self.seed}/{self.workers}"

    @property
    def is_warm(self) -> bool:
        """Whether it knows the sweeps of the other tasks."""
        return self.combination.startswith("portfolio")


@dataclass(frozen=True)
class Surrogate:
    """Learning curves of LCBench, as a network knows them.

    Attributes:
        space: The seven settings.
        tasks: OpenML ids, sorted.
    """

    space: Mapping[str, Domain]
    tasks: tuple[str, ...]
    _codes: Mapping[str, int]
    _session: Any

    @classmethod
    def open(cls, folder: Path) -> Surrogate:
        """Read the surrogate; it is asked with one thread."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        ranges = {h["name"]: h for h in json.loads((folder / "config_space.json").read_text())["hyperparameters"]}
        tasks = ranges.pop("OpenML_task_id")["choices"]
        del ranges["epoch"]
        space: dict[str, Domain] = {
            name: (Int if "int" in h["type"] else Float)(low=h["lower"], high=h["upper"], log=h["log"])
            for name, h in ranges.items()
        }
        codes = json.loads((folder / "encoding.json").read_text())["OpenML_task_id"]
        session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        return cls(space, tuple(sorted(tasks)), codes, session)

    def curve(self, task: str, params: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return the validation accuracy after each epoch, (50,) float64 in percent."""
        names = ("batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout")
        asked = np.empty((EPOCHS, 8), dtype=np.float32)
        asked[:, 0] = np.arange(1, EPOCHS + 1)
        asked[:, 1:] = [params[name] for name in names]
        codes = np.full((EPOCHS, 1), self._codes[task], dtype=np.int32)
        return np.asarray(self._session.run(None, {"x_cat": codes, "x_cont": asked})[0][:, 1], dtype=np.float64)

    def reference(self, task: str, seed: int) -> NDArray[np.float64]:
        """Return the best value of each whole trial of random search with this seed, (50,) float64."""
        trials = range(REFERENCE_EPOCHS // EPOCHS)
        settings = (draw(self.space, rng_for(seed, "random", number, 0)) for number in trials)
        return np.array([self.curve(task, params).max() for params in settings])


@dataclass
class _NoFile:
    """A journal that keeps nothing: these sweeps are not gone on with."""

    def append(self, event: Mapping[str, Any]) -> None:
        """Forget the event."""


@dataclass
class Sweep:
    """A sweep of one task; its trials report from the surrogate, one epoch each in turn."""

    surrogate: Surrogate
    task: str
    context: SearchContext
    search: str
    scheduler: str
    workers: int = 1
    _curves: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def run(self) -> Iterator[tuple[float, SweepState]]:
        """Yield the value of each epoch that is trained, until nothing is left to do."""
        state = SweepState("accuracy", "max", make_scheduler(self.scheduler, self.context))
        engine = Engine(
            state=state,
            journal=cast(Journal, _NoFile()),
            proposer=make_proposer(self.search, self.context),
            space=self.context.space,
            first=(),
            num_samples=self.context.num_samples,
            epochs=EPOCHS,
        )
        places: list[TrialState | None] = [None] * self.workers
        while True:
            places = [trial if trial is not None else engine.next_trial() for trial in places]
            if not any(places):
                return
            for place, trial in enumerate(places):
                if trial is None:
                    continue
                value = self._value(trial)
                goes_on = engine.report(trial.id, {"epoch": trial.epochs + 1, "accuracy": value})
                if goes_on and trial.epochs >= EPOCHS:
                    engine.ended(trial.id)
                    goes_on = False
                if not goes_on:
                    places[place] = None
                yield value, state

    def _value(self, trial: TrialState) -> float:
        if trial.id not in self._curves:
            self._curves[trial.id] = self.surrogate.curve(self.task, trial.params)
        return float(self._curves[trial.id][trial.epochs])


def run_cell(surrogate: Surrogate, cell: Cell, earlier: tuple[EarlierSweep, ...]) -> dict[str, Any]:
    """Search until the end of the reference is reached, or as many epochs are spent."""
    started = time.perf_counter()
    reference = surrogate.reference(cell.task, cell.seed)
    target, usual = float(reference.max()), float(np.median(reference))
    search, scheduler = cell.combination.split("+")
    context = _context(surrogate, cell.seed, earlier)
    best, epochs, trials, values = -np.inf, 0, 0, []
    for value, state in Sweep(surrogate, cell.task, context, search, scheduler, cell.workers).run():
        epochs, best, trials = epochs + 1, max(best, value), len(state.trials)
        values.append(best)
        if best >= target or epochs >= REFERENCE_EPOCHS:
            break
    reached = best >= target
    behind = [values[min(g, len(values)) - 1] for g in GRID]
    return {
        "share": epochs / REFERENCE_EPOCHS if reached else 1.0,
        "grid": list(GRID),
        "regret": [float(np.clip((target - v) / max(target - usual, 1e-9), 0.0, 1.0)) for v in behind],
        "trials": trials,
        "seconds": time.perf_counter() - started,
    }


def earlier_sweep(surrogate: Surrogate, task: str) -> EarlierSweep:
    """Return what a store would hold of a sweep on another task: random search with whole trials, 2,500 epochs."""
    context = _context(surrogate, seed_for(0, "earlier", task), ())
    reports = Sweep(surrogate, task, context, "random", "none").run()
    *_, (_, state) = itertools.islice(reports, REFERENCE_EPOCHS)
    return EarlierSweep(task, {}, "max", EPOCHS, tuple(state.observed()))


def _context(surrogate: Surrogate, seed: int, earlier: tuple[EarlierSweep, ...]) -> SearchContext:
    return SearchContext(surrogate.space, "max", seed, EPOCHS, num_samples=REFERENCE_EPOCHS, earlier=earlier)
