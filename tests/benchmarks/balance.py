"""Macro recall on a 20:1 set with nothing done about it, with class weights in the loss, and with the sampler.

scikit-learn's digits: 900 to train on, of one class only every twentieth; 200 to select the epoch by; the other 697,
all classes alike, are measured. The real stream and the real loop, a short training of ``small_cnn``, once a seed and
rare class::

    python -m tests.benchmarks.balance [runs] [epochs]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from autodl_ray.artifacts import TrainSamples, ValSamples
from autodl_ray.data.samples import write_digits
from autodl_ray.data.sampling import class_counts, class_weights, decide_balance, describe_balance
from autodl_ray.data.stream import StreamSource
from autodl_ray.images import Preprocess
from autodl_ray.models.classifier import build, load_weights
from autodl_ray.models.preprocess import normalize
from autodl_ray.seeding import rng_for
from autodl_ray.train.config import FitConfig
from autodl_ray.train.loop import fit

__all__ = ["Parts", "macro_recall", "parts_of", "recalls_of"]

Way = Literal["none", "weights", "sampler"]
WAYS: tuple[Way, ...] = ("none", "weights", "sampler")
Parts = tuple[TrainSamples, ValSamples, ValSamples]

_CLASSES = tuple(str(i) for i in range(10))
_PREPROCESS = Preprocess(8)


def parts_of(root: Path, *, rare: int, seed: int, keep_every: int = 20) -> Parts:
    """Divide the digits below ``root``: 900 to train on, thinned out in class ``rare``; 200 to select; the rest."""
    paths = sorted(path.relative_to(root).as_posix() for path in root.glob("*/*.png"))
    shuffled = [paths[i] for i in rng_for(seed, "parts").permutation(len(paths))]
    train, select, rest = shuffled[:900], shuffled[900:1100], shuffled[1100:]
    few = [path for path in train if path.startswith(f"{rare}/")][::keep_every]
    train = [path for path in train if not path.startswith(f"{rare}/")] + few
    return TrainSamples(*_columns(root, train)), ValSamples(*_columns(root, select)), ValSamples(*_columns(root, rest))


def recalls_of(parts: Parts, way: Way, *, seed: int, epochs: int, folder: Path) -> npt.NDArray[np.float64]:
    """Train and return the recall of each class: (10,)."""
    train, select, rest = parts
    config = FitConfig(
        model="small_cnn",
        num_classes=10,
        preprocess=_PREPROCESS,
        weights="none",
        epochs=epochs,
        lr=1e-2,
        head_lr_factor=1.0,
        augment="light",
        precision="32",
        seed=seed,
        metric="macro_f1",
        class_weights=tuple(class_weights(train.labels, 10)) if way == "weights" else None,
        balanced=way == "sampler",
    )
    source = StreamSource.make(train, select, _PREPROCESS, seed=seed)
    fit(config, source, folder=folder, report=lambda row: None, should_stop=lambda: False, num_threads=1)
    model = build("small_cnn", num_classes=10, image_size=8, weights="none").eval()
    load_weights(model, folder / "best.safetensors")
    batches = list(StreamSource.make(train, rest, _PREPROCESS, seed=seed).val_batches(batch_size=1000))
    images, labels = (np.concatenate([getattr(b, name) for b in batches]) for name in ("images", "labels"))
    with torch.inference_mode():
        hits = model(normalize(torch.from_numpy(images), _PREPROCESS)).argmax(1).numpy() == labels
    return np.array([hits[labels == c].mean() for c in range(10)])


def macro_recall(recalls: npt.NDArray[np.float64]) -> float:
    """Return the mean over the classes."""
    return float(recalls.mean())


def _columns(root: Path, paths: Sequence[str]) -> tuple[Any, ...]:
    labels = np.array([int(path.split("/")[0]) for path in paths], dtype=np.int64)
    return root, np.arange(len(paths)), tuple(paths), labels, _CLASSES


def main(runs: int = 5, epochs: int = 8) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        root = write_digits(Path(temporary) / "digits")
        rows = {way: np.zeros((runs, 2)) for way in WAYS}
        for run in range(runs):
            rare = (8 - 3 * run) % 10
            parts = parts_of(root, rare=rare, seed=run)
            counts = class_counts(parts[0]).tolist()
            print(describe_balance(decide_balance("auto", counts), _CLASSES, counts))
            for way in WAYS:
                recalls = recalls_of(parts, way, seed=run, epochs=epochs, folder=Path(temporary) / f"{run} {way}")
                rows[way][run] = macro_recall(recalls), recalls[rare]
                print(
                    f"  run {run}, rare {rare}, {way:8s} macro recall {rows[way][run][0]:.3f}, rare {recalls[rare]:.3f}"
                )
    print(
        f"\n| balance | macro recall | worst run | recall of the rare class | ({runs} runs, {epochs} epochs)\n|-|-|-|-|"
    )
    for way, made in rows.items():
        print(f"| {way} | {made[:, 0].mean():.3f} | {made[:, 0].min():.3f} | {made[:, 1].mean():.3f} |")


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:]))
