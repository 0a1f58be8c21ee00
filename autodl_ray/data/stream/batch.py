"""The batches of a stream: cut from its blocks, counted, and handed out epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts import LearningSamples
from autodl_ray.data.stream.blocks import Block, BlockData, BoxRows
from autodl_ray.errors import DatasetError
from autodl_ray.images import ImageArray

__all__ = ["Batch", "Item", "batch_of", "by_epoch", "cut"]


@dataclass(frozen=True)
class Batch:
    """What a training step takes.

    Attributes:
        images: (B, S, S, 3) uint8 RGB, contiguous and writable.
        labels: (B,) int64; -1 where pictures have boxes instead.
        ids: (B,) int64, rows of the version's index.
        boxes: Of each picture the (K, 4) float32 xmin, ymin, xmax, ymax in its pixels; None without boxes.
        box_labels: Of each picture the (K,) int64 classes of its boxes; None without boxes.
    """

    images: ImageArray
    labels: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    boxes: tuple[npt.NDArray[np.float32], ...] | None = None
    box_labels: tuple[npt.NDArray[np.int64], ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)


class Item(NamedTuple):
    """A batch with its epoch, and how many of its samples are missing because they could not be read."""

    epoch: int
    batch: Batch
    missing: int


def batch_of(
    images: ImageArray, samples: LearningSamples, rows: npt.NDArray[np.int64], boxes: BoxRows | None = None
) -> Batch:
    """Put a batch together.

    Args:
        images: (B, S, S, 3) uint8.
        samples: The split.
        rows: (B,) positions in it.
        boxes: Of the B pictures.
    """
    found = None if boxes is None else [(boxes.starts[i], boxes.starts[i + 1]) for i in range(len(rows))]
    return Batch(
        images,
        samples.labels[rows],
        samples.ids[rows],
        None if boxes is None or found is None else tuple(boxes.coords[a:b].copy() for a, b in found),
        None if boxes is None or found is None else tuple(boxes.labels[a:b].copy() for a, b in found),
    )


def cut(
    made: Iterable[tuple[Block, BlockData]],
    samples: LearningSamples,
    note: Callable[[dict[str, str]], None],
    *,
    may_be_empty: bool = False,
) -> Iterator[Item]:
    """Cut blocks into batches, leaving out the pictures that could not be read.

    Args:
        made: Blocks and their pictures.
        samples: The split.
        note: Called with path → reason of pictures that could not be read.
        may_be_empty: Whether a batch of which nothing could be read is left out.

    Raises:
        DatasetError: No picture of a whole batch can be read.
    """
    for block, data in made:
        if len(data) != len(block.positions):
            raise DatasetError(f"{len(data)} of {len(block.positions)} pictures of a block came back.")
        if data.failed:
            note({samples.paths[block.positions[row]]: why for row, why in data.failed.items()})
        first = 0
        for length in block.lengths:
            rows = [row for row in range(first, first + length) if row not in data.failed]
            if not rows and may_be_empty:
                first += length
                continue
            if not rows:
                why = next(iter(data.failed.values()))
                raise DatasetError("No picture of a whole batch can be read.", seen=why, hint="check the folder")
            whole = len(rows) == length
            images = data.images[first : first + length].copy() if whole else data.images[rows]
            boxes = None if data.boxes is None else _rows_of(data.boxes, rows)
            yield Item(block.epoch, batch_of(images, samples, block.positions[rows], boxes), length - len(rows))
            first += length


def _rows_of(boxes: BoxRows, rows: list[int]) -> BoxRows:
    parts = [slice(int(boxes.starts[row]), int(boxes.starts[row + 1])) for row in rows]
    starts = np.cumsum([0, *(part.stop - part.start for part in parts)])
    return BoxRows(
        np.concatenate([boxes.coords[part] for part in parts]),
        np.concatenate([boxes.labels[part] for part in parts]),
        starts.astype(np.int64),
    )


def by_epoch(items: Iterator[Item], start: int, stop: int, *, rows: Callable[[int], int]) -> Iterator[Iterator[Batch]]:
    """Yield one iterator an epoch; batches that were not taken of an epoch are passed over.

    Each epoch is counted: one that ends with fewer or more samples than it has is an error, so that no training
    goes on with a part of its data, or with none.

    Args:
        items: Batches of all epochs, in order.
        start: First epoch.
        stop: The epoch after the last.
        rows: The samples that an epoch must have, those that cannot be read included.
    """
    waiting: list[Item] = []

    def take(epoch: int) -> Iterator[Batch]:
        seen = 0
        while True:
            item = waiting.pop() if waiting else next(items, None)
            if item is None or item.epoch > epoch:
                if item is not None:
                    waiting.append(item)
                _check_rows(epoch, seen, rows(epoch))
                return
            if item.epoch == epoch:
                seen += len(item.batch) + item.missing
                yield item.batch

    try:
        for epoch in range(start, stop):
            yield take(epoch)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _check_rows(epoch: int, seen: int, wanted: int) -> None:
    if seen != wanted:
        raise DatasetError(
            f"Epoch {epoch} of the stream ended after {seen} of {wanted} pictures.",
            hint="take all batches of an epoch before the next one, and none after the stream was closed",
        )
