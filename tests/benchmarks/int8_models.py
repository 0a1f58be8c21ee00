"""Networks that were briefly trained on TrashNet, kept in a folder so that it happens once; for the INT8 benchmark."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autodl_ray.artifacts import TrainSamples, ValSamples
from autodl_ray.data.stream import StreamSource
from autodl_ray.images import Preprocess
from autodl_ray.models.classifier import Classifier, build, load_weights
from autodl_ray.models.zoo import choose
from autodl_ray.spec import ModelSpec
from autodl_ray.spec.sections import TrainSpec
from autodl_ray.train.config import resolve
from autodl_ray.train.loop import fit

CLASSES = ("cardboard", "glass", "metal", "paper", "plastic", "trash")
_NAMES_BY_NUMBER = ("", "glass", "paper", "cardboard", "plastic", "metal", "trash")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: side in px, epochs, peak learning rate, and what it starts from."""

    side: int
    epochs: int
    lr: float
    weights: str


RECIPES = {
    "efficientnet_lite0": Recipe(160, 3, 4e-4, "packaged"),
    "resnet18": Recipe(96, 6, 1e-3, "none"),
    "mobilenet_v3_small": Recipe(96, 8, 2e-3, "none"),
}
"""Only efficientnet_lite0 has ImageNet weights without a network; the others start from nothing."""


def published_splits(root: Path) -> tuple[TrainSamples, ValSamples, ValSamples]:
    """Return the published training, validation and test split (the last one as validation samples: it is scored)."""
    made = [_split(root, name) for name in ("train", "val", "test")]
    return TrainSamples(*made[0]), ValSamples(*made[1]), ValSamples(*made[2])


def _split(root: Path, name: str) -> tuple[Path, np.ndarray, tuple[str, ...], np.ndarray, tuple[str, ...]]:
    lines = (root / "splits" / f"one-indexed-files-notrash_{name}.txt").read_text().split("\n")
    rows = [line.split() for line in lines if line.strip()]
    classes = [_NAMES_BY_NUMBER[int(number)] for _, number in rows]
    paths = tuple(f"images/{label}/{file}" for (file, _), label in zip(rows, classes, strict=True))
    labels = np.asarray([CLASSES.index(label) for label in classes], dtype=np.int64)
    return root, np.arange(len(rows)), paths, labels, CLASSES


def preprocess_of(name: str, size: int) -> Preprocess:
    """Return how the network takes pictures."""
    return choose(ModelSpec(name=name, image_size=size), (256, 192))[1]


def trained(name: str, train: TrainSamples, val: ValSamples, *, kept: Path, size: int) -> Classifier:
    """Return the network with its weights from ``kept``, after training it where they are not there yet."""
    file = kept / f"{name}.safetensors"
    if not file.exists():
        _train(name, train, val, file)
    model = build(name, num_classes=len(CLASSES), image_size=size, weights="none")
    load_weights(model, file)
    return model.eval()


def _train(name: str, train: TrainSamples, val: ValSamples, file: Path) -> None:
    recipe = RECIPES[name]
    began, cpu = time.time(), time.process_time()
    entry, preprocess, weights = choose(
        ModelSpec(name=name, image_size=recipe.side, weights=recipe.weights), (256, 192)
    )
    spec = TrainSpec(batch_size=32, lr=recipe.lr, label_smoothing=0.1, augment="light", precision="bf16")
    config = resolve(
        spec,
        entry,
        preprocess=preprocess,
        num_classes=len(CLASSES),
        weights=weights,
        epochs=recipe.epochs,
        seed=0,
    )
    source = StreamSource.make(train, val, preprocess, seed=0)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made = fit(config, source, folder=Path(folder), report=_report, should_stop=lambda: False)
        assert made.weights_file is not None
        file.write_bytes((Path(folder) / made.weights_file).read_bytes())
    print(
        f"{name}: {recipe.epochs} epochs at {recipe.side} px, {time.time() - began:.0f} s "
        f"({time.process_time() - cpu:.0f} s of CPU), validation {made.metrics['accuracy']:.4f}",
        flush=True,
    )


def _report(row: dict[str, object]) -> None:
    print(f"  epoch {row['epoch']}: validation {row['accuracy']:.4f}", flush=True)
