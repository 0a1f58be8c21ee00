"""Decoding and augmenting a block of samples: the one function that tasks, threads and the driver run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autodl_ray.artifacts import Samples
from autodl_ray.augment import AugmentPolicy
from autodl_ray.data.stream.order import Block, Plan, augment_seed
from autodl_ray.errors import DatasetError
from autodl_ray.images import ImageArray, Preprocess, decode_image, fit_image

__all__ = ["BlockData", "Job", "fill_of"]


@dataclass(frozen=True)
class BlockData:
    """The samples of a block, batch after batch.

    Attributes:
        images: (N, S, S, 3) uint8.
        positions: (N,) int64 positions in the split.
        ok: (N,) bool; False where the picture could not be read, its pixels are then 0.
        epoch: Of the block.
        steps: (N,) int64, the batch of each sample.
    """

    images: ImageArray
    positions: npt.NDArray[np.int64]
    ok: npt.NDArray[np.bool_]
    epoch: int
    steps: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Job:
    """Everything that a task needs to make any block; paths are an Arrow array, shared without copies.

    Attributes:
        root: Folder of the pictures.
        paths: Of the split, relative to ``root``.
        ids: (N,) of the split.
        plan: The order, or None: the split's own order, not augmented (validation).
        preprocess: Size and fit rule of the result.
        augment: What is done to each picture.
        seed: Root seed of the augmentation.
    """

    root: Path
    paths: pa.Array = field(repr=False)
    ids: npt.NDArray[np.int64] = field(repr=False)
    plan: Plan
    shuffled: bool
    preprocess: Preprocess
    augment: AugmentPolicy
    seed: int

    @classmethod
    def of(
        cls, samples: Samples, plan: Plan, *, shuffled: bool, preprocess: Preprocess, augment: AugmentPolicy, seed: int
    ) -> Job:
        """Describe the reading of a split."""
        paths = pa.array(list(samples.paths), type=pa.large_string())
        return cls(samples.root, paths, samples.ids, plan, shuffled, preprocess, augment, seed)

    def positions(self, block: Block) -> list[npt.NDArray[np.int64]]:
        """Return the positions of the samples of each batch of a block."""
        if self.shuffled:
            return list(self.plan.batches(block.epoch, block.first, block.stop))
        size, total = self.plan.batch_size, self.plan.num_samples
        return [np.arange(s * size, min((s + 1) * size, total)) for s in range(block.first, block.stop)]

    def run(self, block: Block) -> BlockData:
        """Decode and augment the samples of a block."""
        batches = self.positions(block)
        positions = np.concatenate(batches)
        size = self.preprocess.size
        images = np.zeros((len(positions), size, size, 3), dtype=np.uint8)
        ok = np.ones(len(positions), dtype=np.bool_)
        for row, position in enumerate(positions):
            try:
                images[row] = self.make(int(position), block.epoch)
            except (DatasetError, OSError):
                ok[row] = False
        steps = np.repeat(np.arange(block.first, block.stop), [len(batch) for batch in batches])
        return BlockData(images, positions, ok, block.epoch, steps)

    def make(self, position: int, epoch: int) -> ImageArray:
        """Read one picture, augment it, and make it square: (S, S, 3) uint8.

        Raises:
            DatasetError: It is no picture.
            OSError: The file cannot be read.
        """
        data = (self.root / self.paths[position].as_py()).read_bytes()
        size = self.preprocess.size
        if self.augment.is_empty:
            return fit_image(decode_image(data), size=size, fit=self.preprocess.fit, fill=fill_of(self.preprocess))
        image = decode_image(data, at_least=2 * size)
        return augmented(
            image,
            self.augment,
            preprocess=self.preprocess,
            rng_seed=augment_seed(self.seed, epoch=epoch, sample_id=int(self.ids[position])),
        )

    def reason(self, position: int) -> str:
        """Say why a picture cannot be read."""
        try:
            self.make(position, 0)
        except DatasetError as error:
            return error.what
        except OSError as error:
            return f"The file cannot be read: {error.strerror}."
        return "It could not be read while training, but can be now."


def augmented(image: ImageArray, augment: AugmentPolicy, *, preprocess: Preprocess, rng_seed: int) -> ImageArray:
    """Augment a decoded picture for the network: (S, S, 3) uint8."""
    return augment.apply(image, size=preprocess.size, fit=preprocess.fit, rng_seed=rng_seed, fill=fill_of(preprocess))


def fill_of(preprocess: Preprocess) -> tuple[int, int, int]:
    """Return the mean as a colour: what lies outside the picture is 0 for the network."""
    red, green, blue = (round(255 * value) for value in preprocess.mean)
    return (red, green, blue)


def concatenate(parts: Sequence[ImageArray]) -> ImageArray:
    """Join images along the batch; a single part is copied, so that the result may be written to."""
    return np.concatenate(parts)
