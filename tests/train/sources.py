"""A source of batches from arrays, with the contract of the stream: for tests of the loop alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodl_ray.augment.policy import AugmentPolicy
from autodl_ray.images import Preprocess
from autodl_ray.seeding import rng_for
from autodl_ray.train.config import FitConfig

__all__ = ["ArrayBatch", "ArraySource", "coloured", "config_for", "digits"]


@dataclass(frozen=True)
class ArrayBatch:
    """Like the stream's batch."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ArraySource:
    """Batches from arrays that are kept, in an order that depends on the epoch alone; no augmentation."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    val_images: npt.NDArray[np.uint8]
    val_labels: npt.NDArray[np.int64]

    @property
    def num_train(self) -> int:
        return len(self.labels)

    @property
    def num_val(self) -> int:
        return len(self.val_labels)

    def train_epochs(
        self,
        *,
        start: int,
        stop: int,
        batch_size: int,
        augment: AugmentPolicy,
        rank: int = 0,
        world_size: int = 1,
        image_size: int | None = None,
        skip_batches: int = 0,
        balanced: bool = False,
        replicate: int = 0,
    ) -> Iterator[Iterator[ArrayBatch]]:
        for epoch in range(start, stop):
            rng = rng_for(replicate, "order", epoch)
            order = rng.permutation(self.num_train)
            if balanced:
                counts = np.bincount(self.labels)
                order = rng.choice(self.num_train, self.num_train, p=1 / counts[self.labels] / np.count_nonzero(counts))
            yield self._epoch(order, batch_size, rank, world_size, skip_batches if epoch == start else 0)

    def _epoch(
        self, order: npt.NDArray[np.int64], batch_size: int, rank: int, world_size: int, skip: int
    ) -> Iterator[ArrayBatch]:
        for first in range(skip * batch_size, self.num_train, batch_size):
            rows = np.array_split(order[first : first + batch_size], world_size)[rank]
            yield ArrayBatch(self.images[rows], self.labels[rows])

    def val_batches(self, *, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[ArrayBatch]:
        mine = np.array_split(np.arange(self.num_val), world_size)[rank]
        for first in range(0, len(mine), batch_size):
            rows = mine[first : first + batch_size]
            yield ArrayBatch(self.val_images[rows], self.val_labels[rows])


def digits() -> ArraySource:
    """scikit-learn's digits: 1,400 to train on, 397 to validate; 8 px, RGB."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.repeat((data.images * 15.9).astype(np.uint8)[..., None], 3, axis=3)
    order = rng_for(0, "digits").permutation(len(images))
    images, labels = images[order], data.target[order].astype(np.int64)
    return ArraySource(images[:1400], labels[:1400], images[1400:], labels[1400:])


def coloured(*, train: int = 70, val: int = 30, size: int = 8) -> ArraySource:
    """Noisy red, green and blue squares: three classes that a line divides."""
    rng = rng_for(0, "coloured")
    labels = rng.integers(0, 3, train + val)
    images = rng.integers(0, 120, (train + val, size, size, 3), dtype=np.uint8)
    images[np.arange(len(labels)), :, :, labels] += 60
    return ArraySource(images[:train], labels[:train], images[train:], labels[train:])


def config_for(source: ArraySource, *, model: str = "small_cnn", epochs: int = 3, **changes: object) -> FitConfig:
    """A configuration for the pictures of ``source``, in float32 without augmentation."""
    values: dict[str, object] = {"lr": 1e-2, "head_lr_factor": 1.0, "augment": "none", "precision": "32", **changes}
    return FitConfig(
        model=model,
        num_classes=int(source.labels.max()) + 1,
        preprocess=Preprocess(source.images.shape[1]),
        weights="none",
        epochs=epochs,
        **values,  # type: ignore[arg-type]
    )
