"""Photos kept decoded in the object store: made by the first tasks of a stream, read by all later ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from autodl_ray.data.stream.blocks import Block
from autodl_ray.data.stream.execution import Call, Runner
from autodl_ray.data.stream.job import Job

__all__ = ["PhotoCache", "calls_of"]

_FIRST = 32
_MOST = 512


@dataclass(frozen=True)
class PhotoCache:
    """Which stored part holds which picture; picklable, for the processes that train.

    The parts are cut along the order of the first epoch and made in that order, so that its first batch waits for the
    first part alone: the first epoch fills the cache, later ones read no file.

    Attributes:
        parts: What stands for the :class:`~autodl_ray.data.stream.decoded.Decoded` parts.
        part: (N,) int32, the part of each sample.
        row: (N,) int32, its row there.
    """

    parts: tuple[Any, ...] = field(repr=False)
    part: npt.NDArray[np.int32] = field(repr=False)
    row: npt.NDArray[np.int32] = field(repr=False)

    @classmethod
    def begin(cls, job: Job, order: npt.NDArray[np.int64], runner: Runner) -> PhotoCache:
        """Begin to decode all samples; with Ray this returns before they are.

        Args:
            job: How they are decoded.
            order: (N,) positions in the order of the first epoch.
            runner: What decodes.
        """
        count = len(job.pictures.ids)
        cuts = _cuts(count)
        part, row = np.empty(count, dtype=np.int32), np.empty(count, dtype=np.int32)
        for number, (first, stop) in enumerate(cuts):
            part[order[first:stop]] = number
            row[order[first:stop]] = np.arange(stop - first)
        shared = runner.share(job)
        parts = runner.chain([(Job.decode, (shared, order[first:stop])) for first, stop in cuts])
        return cls(tuple(parts), part, row)

    def find(self, positions: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], list[Any]]:
        """Return (N, 2) which of the parts and which row of it holds each sample, and those parts."""
        numbers, which = np.unique(self.part[positions], return_inverse=True)
        where = np.stack([which.astype(np.int32), self.row[positions]], axis=1)
        return where, [self.parts[number] for number in numbers]


def calls_of(shared: Any, blocks: Iterable[Block], cache: PhotoCache | None) -> Iterator[tuple[Block, Call]]:
    """Return the call that makes each block, from kept photos where there are some."""
    for block in blocks:
        if cache is None:
            yield block, (Job.run, (shared, block))
        else:
            where, parts = cache.find(block.positions)
            yield block, (Job.run, (shared, block, where, *parts))


def _cuts(count: int) -> list[tuple[int, int]]:
    """Cut so that the first part is there early, and that there are few: later tasks take them all."""
    cuts, first, size = [], 0, _FIRST
    while first < count:
        cuts.append((first, min(first + size, count)))
        first, size = first + size, min(_MOST, size * 4)
    return cuts
