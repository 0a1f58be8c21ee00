"""Which sample comes when: the order of an epoch, its batches, and the part of each that a worker gets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodl_ray.errors import SpecError
from autodl_ray.seeding import rng_for, seed_for

__all__ = ["Block", "Plan", "augment_seed"]

Positions = npt.NDArray[np.int64]


def augment_seed(seed: int, *, epoch: int, sample_id: int) -> int:
    """Return the seed of a sample's augmentation: of (seed, epoch, id) alone."""
    return seed_for(seed, "augment", epoch, sample_id)


@dataclass(frozen=True)
class Block:
    """Consecutive batches of one epoch, read by one task: steps ``first`` to ``stop`` (excluded)."""

    epoch: int
    first: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """The order of the samples in every epoch, computed wherever it is needed and never sent.

    A global batch is the same for every number of workers; worker ``rank`` gets its rank-th slice (as
    ``numpy.array_split`` cuts it), so that every worker has the same number of batches. The last batch of an epoch
    holds what is left. With one worker every sample comes exactly once an epoch. With more that holds too, unless
    the last batch has fewer samples than there are workers: then samples from the start of the epoch's order
    are repeated until each worker has one.

    Attributes:
        num_samples: N.
        batch_size: Samples of a global batch.
        seed: Root seed of the order.
        rank: Of this worker.
        world_size: How many workers there are.
    """

    num_samples: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < self.world_size:
            raise SpecError(
                "The batch is smaller than the number of workers.",
                seen=f"batch_size {self.batch_size}, num_workers {self.world_size}",
                accepted="at least one sample a worker",
            )

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.num_samples // self.batch_size)

    @property
    def slice_size(self) -> int:
        """Most samples that this worker gets in a batch."""
        return -(-self.batch_size // self.world_size)

    def batches(self, epoch: int, first: int = 0, stop: int | None = None) -> Iterator[Positions]:
        """Yield the positions (0 … N-1) of this worker's slice of each batch of an epoch, from step ``first`` on."""
        order = rng_for(self.seed, "order", epoch).permutation(self.num_samples)
        for step in range(first, self.steps if stop is None else stop):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            if len(batch) < self.world_size:
                batch = np.concatenate([batch, np.resize(order, self.world_size - len(batch))])
            yield batch if self.world_size == 1 else np.array_split(batch, self.world_size)[self.rank]

    def blocks(self, start: int, stop: int, *, skip: int, batches_per_block: int) -> Iterator[Block]:
        """Cut epochs ``start`` to ``stop`` (excluded) into blocks, leaving out the first ``skip`` batches."""
        for epoch in range(start, stop):
            for first in range(skip if epoch == start else 0, self.steps, batches_per_block):
                yield Block(epoch, first, min(first + batches_per_block, self.steps))
