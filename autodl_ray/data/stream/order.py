"""Which sample comes when: the order of an epoch, its batches, and the part of each that a worker gets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autodl_ray.errors import InputError, SpecError
from autodl_ray.seeding import rng_for, seed_for

__all__ = ["Plan", "Slice", "augment_seed", "weighted_draw"]

Positions = npt.NDArray[np.int64]


def augment_seed(seed: int, *, epoch: int, sample_id: int, occurrence: int = 0) -> int:
    """Return the seed of a sample's augmentation: of (seed, epoch, id) alone.

    A sample that comes more than once in an epoch (weighted sampling) looks different each time: ``occurrence``
    counts from 0 within the epoch.
    """
    again = (occurrence,) if occurrence else ()
    return seed_for(seed, "augment", epoch, sample_id, *again)


def weighted_draw(weights: npt.NDArray[np.float64], *, rng: np.random.Generator) -> Positions:
    """Draw as many samples as there are, each in proportion to its weight, and shuffle them.

    Systematic resampling (Madow 1949): N equidistant points with one random offset fall on the cumulated weights, so
    that a sample with the expected count x = N · w / Σ w comes ⌊x⌋ or ⌈x⌉ times, x on average. Samples of equal weight
    lie side by side, in random order, before the points fall: so a class whose samples share a weight of their own
    gets its expected count too, within one. Independent draws would leave out a third of the samples at equal
    weights; here equal weights give every sample exactly once.

    Args:
        weights: (N,) finite, at least 0, not all 0.
        rng: Of the epoch.

    Returns:
        (N,) int64 positions in [0, N).
    """
    count = len(weights)
    mixed = rng.permutation(count)
    mixed = mixed[np.argsort(weights[mixed], kind="stable")]
    ends = np.cumsum(weights[mixed])
    points = (np.arange(count) + rng.random()) * (ends[-1] / count)
    drawn = mixed[np.minimum(np.searchsorted(ends, points, side="right"), count - 1)]
    return rng.permutation(drawn)


class Slice(NamedTuple):
    """A worker's part of a batch.

    Attributes:
        positions: (B,) int64 positions in the split.
        occurrences: (B,) int64, how often each of them came before in this epoch: 0 without weights.
    """

    positions: Positions
    occurrences: Positions


@dataclass(frozen=True)
class Plan:
    """The order of the samples in every epoch, computed wherever it is needed and never sent.

    A global batch is the same for every number of workers; worker ``rank`` gets its rank-th slice (as
    ``numpy.array_split`` cuts it), so that every worker has the same number of batches. The last batch of an epoch
    holds what is left; where that is less than one a worker, it takes what is missing from the batch before. So
    every sample comes exactly once an epoch, for every number of workers. The one exception are batches of hardly one
    sample a worker, where that leaves the batch before too small: then samples from the start of the epoch's order
    are repeated until each worker has one.

    With weights an epoch has N samples too, drawn by :func:`weighted_draw` from (seed, epoch) alone and cut like
    the others: what is drawn does not depend on the number of workers.

    Attributes:
        num_samples: N.
        batch_size: Samples of a global batch.
        seed: Root seed of the order.
        rank: Of this worker.
        world_size: How many workers there are.
        weights: (N,) float64, how often a sample comes, relative to the others; None: each comes once.
    """

    num_samples: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    weights: npt.NDArray[np.float64] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.batch_size < self.world_size:
            raise SpecError(
                "The batch is smaller than the number of workers.",
                seen=f"batch_size {self.batch_size}, num_workers {self.world_size}",
                accepted="at least one sample a worker",
            )
        if self.weights is not None:
            _check_weights(self.weights, self.num_samples)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.num_samples // self.batch_size)

    @property
    def slice_size(self) -> int:
        """Most samples that this worker gets in a batch."""
        return -(-self.batch_size // self.world_size)

    def order(self, epoch: int) -> Positions:
        """Return the (N,) positions of an epoch, of all workers, in order."""
        rng = rng_for(self.seed, "order", epoch)
        return rng.permutation(self.num_samples) if self.weights is None else weighted_draw(self.weights, rng=rng)

    def slices(self, epoch: int, first: int = 0, stop: int | None = None) -> Iterator[Slice]:
        """Yield this worker's part of each batch of an epoch, from step ``first`` on."""
        order = self.order(epoch)
        earlier = np.zeros_like(order) if self.weights is None else _occurrences(order)
        rows, cuts = np.arange(self.num_samples), self._cuts()
        for step in range(first, self.steps if stop is None else stop):
            batch = rows[cuts[step] : cuts[step + 1]]
            if len(batch) < self.world_size:
                batch = np.concatenate([batch, np.resize(rows, self.world_size - len(batch))])
            mine = batch if self.world_size == 1 else np.array_split(batch, self.world_size)[self.rank]
            yield Slice(order[mine], earlier[mine])

    def _cuts(self) -> list[int]:
        """Return where each batch begins in the order of an epoch, and where the last one ends."""
        cuts = [*range(0, self.num_samples, self.batch_size), self.num_samples]
        if self.steps > 1:
            short = self.world_size - (cuts[-1] - cuts[-2])
            if 0 < short <= self.batch_size - self.world_size:
                cuts[-2] -= short
        return cuts

    def batches(self, epoch: int, first: int = 0, stop: int | None = None) -> Iterator[Positions]:
        """Yield the positions (0 … N-1) of this worker's part of each batch of an epoch, from step ``first`` on."""
        return (part.positions for part in self.slices(epoch, first, stop))


def _occurrences(order: Positions) -> Positions:
    """Count, for each entry, the equal ones before it."""
    by_value = np.argsort(order, kind="stable")
    ordered = order[by_value]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    runs = np.diff(np.append(starts, len(order)))
    counts = np.empty_like(order)
    counts[by_value] = np.arange(len(order)) - np.repeat(starts, runs)
    return counts


def _check_weights(weights: npt.NDArray[np.float64], count: int) -> None:
    usable = weights.shape == (count,) and bool(np.isfinite(weights).all()) and bool((weights >= 0).all())
    if not usable or (count > 0 and weights.sum() <= 0):
        raise InputError(
            "These are no weights for the samples of an epoch.",
            seen=f"{weights.shape} for {count} samples, from {weights.min(initial=0)} to {weights.max(initial=0)}",
            accepted="one finite number of at least 0 a sample, not all of them 0",
        )
