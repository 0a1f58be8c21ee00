"""A small data set on disk, and small networks that know it, for the tests of export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from autodl_ray.artifacts import Store, TrainSamples, ValSamples
from autodl_ray.images import Preprocess
from autodl_ray.models.classifier import Classifier, build
from autodl_ray.models.preprocess import preprocess_tensor
from autodl_ray.runtime import Budget, Context, SilentProgress, StopFlag
from autodl_ray.seeding import rng_for

CLASSES = ("disc", "frame", "stripes")


@dataclass(frozen=True)
class Shapes:
    """Drawn pictures of three classes, sizes varying."""

    train: TrainSamples
    val: ValSamples


def draw(label: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one picture of a class in random colours, with noise."""
    back, front = rng.integers(0, 100, 3), rng.integers(150, 256, 3)
    y, x = np.mgrid[0:height, 0:width]
    v, u = (y + 0.5) / height - 0.5, (x + 0.5) / width - 0.5
    mask = (u**2 + v**2 < 0.1, np.maximum(abs(u), abs(v)) > 0.35, (6 * u).astype(int) % 2 == 0)[label]
    picture = np.where(mask[..., None], front, back) + rng.normal(0, 12, (height, width, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def make_shapes(root: Path, *, train: int = 48, val: int = 60) -> Shapes:
    """Write the pictures as PNG files."""
    rng = rng_for(0, "shapes")
    paths, labels = [], []
    for i in range(train + val):
        label = i % 3
        path = root / CLASSES[label] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = (24, 24) if i % 2 else (int(rng.integers(12, 50)), int(rng.integers(12, 50)))
        Image.fromarray(draw(label, height, width, rng)).save(path)
        paths.append(path.relative_to(root).as_posix())
        labels.append(label)
    ids, target = np.arange(train + val), np.asarray(labels, dtype=np.int64)
    return Shapes(
        TrainSamples(root, ids[:train], tuple(paths[:train]), target[:train], CLASSES),
        ValSamples(root, ids[train:], tuple(paths[train:]), target[train:], CLASSES),
    )


def fitted(shapes: Shapes, preprocess: Preprocess, *, steps: int = 25, name: str = "small_cnn") -> Classifier:
    """Train a small network on the pictures for a few steps."""
    model = build(name, num_classes=3, image_size=preprocess.size, weights="none").train()
    pictures = [np.asarray(Image.open(shapes.train.root / p)) for p in shapes.train.paths]
    pixels = torch.from_numpy(np.stack([preprocess_tensor(p, preprocess) for p in pictures]))
    labels = torch.from_numpy(shapes.train.labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # steps this small only wait for each other on two cores
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pixels), labels).backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return model.eval()


def context_in(folder: Path) -> Context:
    """Return the surroundings of a run whose store is ``folder``."""
    return Context(
        store=Store(folder),
        run="shapes",
        seed=0,
        budget=Budget(600),
        progress=SilentProgress(),
        stop=StopFlag(folder / "stop"),
    )
