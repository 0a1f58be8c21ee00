"""A sweep on digits in a process of its own, to be killed: ``python -m tests.tune.driver STORE DIGITS N [TUNE]``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from autodl_ray.artifacts import Store, TrainSamples, ValSamples
from autodl_ray.images import Preprocess
from autodl_ray.runtime import Budget, Context, SilentProgress, StopFlag
from autodl_ray.runtime.cluster import ensure_ray, stop_ray
from autodl_ray.spec import Float, TrainSpec, TuneSpec

EPOCHS = 6
PREPROCESS = Preprocess(size=8, fit="stretch", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def sweep_inputs(digits: Path, *, num_samples: int, train: int = 300, **changes: object):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Make the inputs of a sweep over a linear net on the digits in ``digits``; needs a running Ray."""
    from autodl_ray import tune
    from autodl_ray.data.stream import StreamSource

    files = sorted(digits.glob("*/*.png"), key=lambda p: p.name)
    classes = tuple(sorted(p.name for p in digits.iterdir()))
    labels = np.array([classes.index(p.parent.name) for p in files], dtype=np.int64)
    names, ids = tuple(p.relative_to(digits).as_posix() for p in files), np.arange(len(files))
    source = StreamSource.make(
        TrainSamples(digits, ids[:train], names[:train], labels[:train], classes),
        ValSamples(digits, ids[train:], names[train:], labels[train:], classes),
        PREPROCESS,
        seed=0,
    )
    wanted: dict[str, object] = {
        "base": TrainSpec(lr=3e-3, dropout=0.0, label_smoothing=0.0, augment="none", precision="32"),
        "model": "pixels",
        "preprocess": PREPROCESS,
        "weights": "none",
        "num_classes": len(classes),
        "source": source,
        "num_samples": num_samples,
        "epochs": EPOCHS,
        "param_space": {
            "lr": Float(low=3e-4, high=3e-2, log=True),
            "weight_decay": Float(low=1e-4, high=0.2, log=True),
        },
    }
    return tune.SweepInputs(**{**wanted, **changes})  # type: ignore[arg-type]


def sweep_context(store: Path) -> Context:
    """Make the surroundings of a run named ``run``."""
    return Context(Store(store), "run", 0, Budget(600.0), SilentProgress(), StopFlag(store / "stop"))


def main() -> None:
    """Run the sweep and print what came out as JSON."""
    from autodl_ray import tune

    store, digits, num_samples = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    spec = TuneSpec(search="random", **json.loads(sys.argv[4] if len(sys.argv) > 4 else "{}"))
    ensure_ray(store, num_cpus=2, num_gpus=0, object_store_bytes=200 * 2**20)
    inputs = sweep_inputs(digits, num_samples=num_samples)
    result = tune.run(spec, inputs, key="sweep", context=sweep_context(store))
    assert result.best is not None
    trials = {t.id: [t.status, t.epochs, dict(t.params)] for t in result.trials}
    sys.stdout.write(json.dumps({"best": result.best.id, "trials": trials}) + "\n")
    sys.stdout.flush()
    stop_ray()
    os._exit(0)


if __name__ == "__main__":
    main()
