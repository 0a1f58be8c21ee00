"""What one task makes: some consecutive batches of an epoch, and the pictures that come out of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from autodl_ray.data.stream.order import Plan, Slice
from autodl_ray.images import ImageArray

__all__ = ["Block", "BlockData", "BoxRows", "blocks_of", "plain_blocks"]


@dataclass(frozen=True)
class Block:
    """Consecutive batches of one epoch.

    Attributes:
        epoch: Counted from 0.
        positions: (N,) int64 positions in the split, batch after batch.
        occurrences: (N,) int64, how often each came before in the epoch.
        lengths: Samples of each batch.
    """

    epoch: int
    positions: npt.NDArray[np.int64]
    occurrences: npt.NDArray[np.int64]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, epoch: int, slices: list[Slice]) -> Block:
        """Put batches together."""
        return cls(
            epoch,
            np.concatenate([part.positions for part in slices]),
            np.concatenate([part.occurrences for part in slices]),
            tuple(len(part.positions) for part in slices),
        )

    def part(self, rows: slice) -> Block:
        """Return some of its samples, as one batch."""
        positions = self.positions[rows]
        return Block(self.epoch, positions, self.occurrences[rows], (len(positions),))


@dataclass(frozen=True)
class BoxRows:
    """The boxes of the pictures of a block, one after the other.

    Attributes:
        coords: (M, 4) float32 xmin, ymin, xmax, ymax in pixels of the (S, S) picture.
        labels: (M,) int64.
        starts: (N + 1,) int64: picture i has ``starts[i]`` to ``starts[i + 1]`` (excluded).
    """

    coords: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    def part(self, rows: slice) -> BoxRows:
        """Return the boxes of some of the pictures, without a copy."""
        starts = self.starts[rows.start : rows.stop + 1]
        chosen = slice(int(starts[0]), int(starts[-1]))
        return BoxRows(self.coords[chosen], self.labels[chosen], starts - starts[0])


@dataclass(frozen=True)
class BlockData:
    """The pictures of a block.

    Attributes:
        images: (N, S, S, 3) uint8.
        failed: Row → reason of the pictures that could not be read; their pixels mean nothing.
        boxes: Where the pictures have some.
    """

    images: ImageArray = field(repr=False)
    failed: dict[int, str]
    boxes: BoxRows | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def part(self, rows: slice) -> BlockData:
        """Return some of the pictures, without a copy."""
        failed = {row - rows.start: why for row, why in self.failed.items() if rows.start <= row < rows.stop}
        return BlockData(self.images[rows], failed, None if self.boxes is None else self.boxes.part(rows))


def blocks_of(plan: Plan, start: int, stop: int, *, skip: int, most: int, ramp: int) -> Iterator[Block]:
    """Cut epochs into blocks, which never reach over the end of an epoch.

    Args:
        plan: The order.
        start: First epoch.
        stop: The epoch after the last.
        skip: Batches of the first epoch that are left out.
        most: Batches of a block.
        ramp: The first so many blocks have one batch, the next so many two, and so on, so that the first batch
            is there early.
    """
    made = 0
    for epoch in range(start, stop):
        waiting: list[Slice] = []
        for part in plan.slices(epoch, skip if epoch == start else 0):
            waiting.append(part)
            if len(waiting) >= min(most, 2 ** (made // ramp)):
                yield Block.of(epoch, waiting)
                made, waiting = made + 1, []
        if waiting:
            yield Block.of(epoch, waiting)
            made += 1


def plain_blocks(first: int, stop: int, size: int) -> list[Block]:
    """Cut samples ``first`` to ``stop`` (excluded) of a split, in its own order, into blocks of ``size`` samples."""
    parts = [np.arange(at, min(at + size, stop)) for at in range(first, stop, size)]
    return [Block(0, part, np.zeros_like(part), (len(part),)) for part in parts]
