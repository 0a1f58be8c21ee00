"""How many epochs a search needs to find what random search finds, on real trainings of photos.

    python -m tests.benchmarks.search_photos record TABLE.jsonl [--data trashnet] [--size 96]
    python -m tests.benchmarks.search_photos replay TABLE.jsonl [--seeds 3] [--json]

``record`` fine-tunes efficientnet_lite0 on the published training split of TrashNet with every setting of a small space
(6 learning rates, 3 augmentations, with and without label smoothing: 36 whole trainings of 6 epochs, some 25 minutes on
two cores) and writes down the validation accuracy of each epoch; it goes on where it was stopped. ``replay`` searches
the same space with the shipped engine, proposers and schedulers; a training is looked up instead of made again: its
seed is fixed, so that it would give the same numbers. The test split is not touched.

Reference: random search with 24 whole trainings (144 epochs), same seed. Figure: the share of these epochs until its
best validation accuracy is reached, 1.0 if never. Goal: at most 1/3.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from autodl_ray.spec.domains import Choice, Domain, Int
from autodl_ray.tune.contracts import SearchContext
from autodl_ray.tune.engine import Engine
from autodl_ray.tune.journal import Journal
from autodl_ray.tune.proposers import make_proposer
from autodl_ray.tune.schedulers import make_scheduler
from autodl_ray.tune.state import SweepState, TrialState

LRS = (5e-5, 1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3)
AUGMENTS, SMOOTHINGS = ("none", "light", "strong"), (0.0, 0.1)
SPACE: Mapping[str, Domain] = {
    "lr_step": Int(low=0, high=len(LRS) - 1),  # 5e-5, doubled at each step: their order is known
    "augment": Choice(values=AUGMENTS),
    "label_smoothing": Choice(values=SMOOTHINGS),
}
EPOCHS, REFERENCE_TRIALS = 6, 24
REFERENCE_EPOCHS = EPOCHS * REFERENCE_TRIALS
COMBINATIONS = ("random+none", "random+asha", "tpe+none", "tpe+asha", "curves+asha_promotion", "curves+freeze_thaw")

Curve = Callable[[Mapping[str, Any]], list[float]]


@dataclass
class _NoFile:
    """A journal that keeps nothing."""

    def append(self, event: Mapping[str, Any]) -> None:
        """Forget the event."""


def main() -> None:
    """Record, or replay."""
    given = _arguments()
    if given.what == "record":
        record(given.table, given.data, size=given.size)
        return
    rows = [json.loads(line) for line in given.table.read_text().splitlines()]
    table = {_key(row["params"]): row["accuracy"] for row in rows}
    wanted = len(list(_grid()))
    if len(table) < wanted:
        sys.exit(f"{given.table} holds {len(table)} of {wanted} trainings; go on with record")
    shares = {
        name: [share(name, lambda params: table[_key(_train_params(params))], seed) for seed in range(given.seeds)]
        for name in COMBINATIONS
    }
    if given.json:
        print(json.dumps({"epochs": EPOCHS, "reference_epochs": REFERENCE_EPOCHS, "shares": shares}))
        return
    best = max(max(curve) for curve in table.values())
    print(f"share of random's {REFERENCE_EPOCHS} epochs, {given.seeds} seeds; best of all: {best:.4f}")
    for name, values in sorted(shares.items(), key=lambda item: statistics.mean(item[1])):
        each = " ".join(f"{v:.2f}" for v in values[:10])
        print(f"{name:24s} mean {statistics.mean(values):.3f}  median {statistics.median(values):.3f}   {each}")


def share(combination: str, curve: Curve, seed: int) -> float:
    """Return the share of the reference's epochs that a search needs."""
    reference = itertools.islice(_values("random+none", curve, seed), REFERENCE_EPOCHS)
    target = max(reference)
    for spent, value in enumerate(itertools.islice(_values(combination, curve, seed), REFERENCE_EPOCHS), start=1):
        if value >= target:
            return spent / REFERENCE_EPOCHS
    return 1.0


def _values(combination: str, curve: Curve, seed: int) -> Iterator[float]:
    """Yield the validation accuracy of each epoch that a search with one place trains."""
    search, scheduler = combination.split("+")
    trials = len(list(_grid()))
    context = SearchContext(SPACE, "max", seed, EPOCHS, num_samples=trials, grace_period=1)
    state = SweepState("accuracy", "max", make_scheduler(scheduler, context))
    engine = Engine(
        state, cast(Journal, _NoFile()), make_proposer(search, context), SPACE, (), num_samples=trials, epochs=EPOCHS
    )
    while (trial := engine.next_trial()) is not None:
        yield from _train(engine, trial, curve(trial.params))


def _train(engine: Engine, trial: TrialState, curve: list[float]) -> Iterator[float]:
    goes_on = True
    while goes_on and trial.epochs < EPOCHS:
        value = curve[trial.epochs]
        goes_on = engine.report(trial.id, {"epoch": trial.epochs + 1, "accuracy": value})
        yield value
    if goes_on:
        engine.ended(trial.id)


def _train_params(params: Mapping[str, Any]) -> dict[str, Any]:
    return {"lr": LRS[params["lr_step"]], **{k: v for k, v in params.items() if k != "lr_step"}}


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params), sort_keys=True)


def _grid() -> Iterator[dict[str, Any]]:
    for lr, augment, smoothing in itertools.product(LRS, AUGMENTS, SMOOTHINGS):
        yield {"lr": lr, "augment": augment, "label_smoothing": smoothing}


def record(path: Path, data: Path, *, size: int) -> None:
    """Train what the table does not hold yet."""
    import ray
    import torch

    from autodl_ray.artifacts import TrainSamples, ValSamples
    from autodl_ray.data.stream import StreamSource
    from autodl_ray.models.zoo import choose
    from autodl_ray.spec.sections import ModelSpec, TrainSpec
    from autodl_ray.train.config import resolve
    from autodl_ray.train.loop import fit

    root = data / "images"
    classes = tuple(sorted({name.split("/")[0] for name in _listed(data, "train")}))
    train, val = (
        kind(root, np.arange(len(n)), n, np.array([classes.index(x.split("/")[0]) for x in n]), classes)
        for kind, n in ((TrainSamples, _listed(data, "train")), (ValSamples, _listed(data, "val")))
    )
    cpus = len(os.sched_getaffinity(0))
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, logging_level="ERROR")
    torch.set_num_threads(cpus)
    entry, preprocess, weights = choose(ModelSpec(image_size=size), (512, 384))
    source = StreamSource.make(train, val, preprocess, seed=0)
    known = {_key(json.loads(line)["params"]) for line in path.read_text().splitlines()} if path.exists() else set()
    for params in _grid():
        if _key(params) in known:
            continue
        spec = TrainSpec(head_lr_factor=5.0, precision="bf16", **params)
        config = resolve(
            spec, entry, preprocess=preprocess, num_classes=len(classes), weights=weights, epochs=EPOCHS, seed=0
        )
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            made = fit(config, source, folder=Path(folder), report=lambda row: None, should_stop=lambda: False)
        row = {"params": params, "accuracy": [r["accuracy"] for r in made.history]}
        with path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(f"{params}: {made.metrics['accuracy']:.4f} in {time.perf_counter() - began:.0f} s", flush=True)


def _listed(data: Path, split: str) -> tuple[str, ...]:
    """Return the files of a published split as CLASS/FILE."""
    lines = (data / "splits" / f"one-indexed-files-notrash_{split}.txt").read_text().split("\n")
    names = [Path(line.split()[0]).name for line in lines if line.strip()]
    return tuple(f"{name.split('.')[0].rstrip('0123456789')}/{name}" for name in names)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    shared = Path(os.environ.get("AUTODL_SHARED", Path(__file__).parents[2].parent / "shared"))
    parser.add_argument("what", choices=("record", "replay"))
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", type=Path, default=shared / "data" / "trashnet")
    parser.add_argument("--size", type=int, default=96, help="side of the input, px")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
