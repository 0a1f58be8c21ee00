"""The stream of batches that training and selection take their pictures from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts import Samples, TrainSamples, ValSamples
from autodl_ray.augment import AugmentPolicy
from autodl_ray.data.imagefolder import some
from autodl_ray.data.stream.execution import STREAM_CPUS, ray_blocks, thread_blocks
from autodl_ray.data.stream.feed import Feed
from autodl_ray.data.stream.job import BlockData, Job, augmented, fill_of
from autodl_ray.data.stream.kept import KeptPictures, estimate_sides, keep_raw, keep_square, ray_is_on, square_of
from autodl_ray.data.stream.order import Block, Plan, augment_seed
from autodl_ray.errors import DatasetError
from autodl_ray.images import ImageArray, Preprocess, fit_image

__all__ = ["Batch", "StreamSource"]

_MEMORY_LIMIT = 2**30
_KEPT_SIDE = 64
_BLOCK_SAMPLES = 128
_BLOCK_BYTES = 32 * 2**20
_DEPTH = 3


@dataclass(frozen=True)
class Batch:
    """What a training step takes.

    Attributes:
        images: (B, S, S, 3) uint8 RGB, contiguous and writable.
        labels: (B,) int64.
        ids: (B,) int64, rows of the version's index.
    """

    images: ImageArray
    labels: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class StreamSource:
    """Where batches come from; made on the driver, picklable, used in the processes that train.

    Small pictures (at most 64 px a side) are decoded once and kept in the object store; each process augments them
    itself. Photos are streamed: Ray Data decodes and augments them in tasks, all epochs in one execution. Without a
    running Ray the same happens in threads of this process. Either way the order of the batches depends on (seed,
    epoch) alone and the pixels of a sample on (seed, epoch, id) alone: not on workers, mode or resume.

    Attributes:
        train: Training split.
        val: Validation split, never augmented.
        preprocess: Size and fit rule.
        seed: Root seed of order and augmentation.
        max_unreadable: Share of pictures that may turn out unreadable before that is an error.
        unreadable: Path → reason of the pictures that could not be read, filled while reading, in this process.
    """

    train: TrainSamples = field(repr=False)
    val: ValSamples = field(repr=False)
    preprocess: Preprocess
    seed: int
    max_unreadable: float = 0.2
    unreadable: dict[str, str] = field(default_factory=dict)
    _train_kept: KeptPictures | None = field(default=None, repr=False)
    _train_square: KeptPictures | None = field(default=None, repr=False)
    _val_kept: KeptPictures | None = field(default=None, repr=False)

    @classmethod
    def make(
        cls,
        train: TrainSamples,
        val: ValSamples,
        preprocess: Preprocess,
        *,
        seed: int,
        memory_limit_bytes: int = _MEMORY_LIMIT,
        max_unreadable: float = 0.2,
    ) -> StreamSource:
        """Decode what is kept, and decide what is streamed.

        Args:
            train: Training split; only its pictures are augmented.
            val: Validation split; its pictures are decoded and scaled once.
            preprocess: Size and fit rule of the batches.
            seed: Root seed.
            memory_limit_bytes: Most bytes of decoded pictures that are kept; also at most 30 % of the object store.
            max_unreadable: Share of unreadable pictures above which reading fails.

        Raises:
            DatasetError: A split of another kind was given, or too many pictures cannot be read.
        """
        _check_kinds(train, val)
        limit = min(memory_limit_bytes, _object_store_share())
        fill = fill_of(preprocess)
        square_bytes = 3 * preprocess.size**2
        val_kept = keep_square(val, preprocess, fill) if len(val) * square_bytes <= limit else None
        limit -= len(val) * square_bytes if val_kept is not None else 0
        train_kept = _keep_small(train, limit)
        train_square = None
        if train_kept is not None and len(train_kept) * square_bytes <= limit:
            fits = train_kept.square(preprocess.size) is not None
            train_square = train_kept if fits else square_of(train_kept, preprocess, fill)
        source = cls(train, val, preprocess, seed, max_unreadable, {}, train_kept, train_square, val_kept)
        for kept in (train_kept, val_kept):
            if kept is not None:
                source._note(kept.unreadable)
        return source

    @property
    def is_streamed(self) -> bool:
        """Whether training pictures are decoded again in every epoch."""
        return self._train_kept is None

    @property
    def cpus_needed(self) -> float:
        """CPUs of the cluster that reservations must leave free, or the stream waits for ever."""
        return STREAM_CPUS if self.is_streamed or self._val_kept is None else 0.0

    @property
    def num_train(self) -> int:
        """Samples of an epoch."""
        return len(self.train) if self._train_kept is None else len(self._train_kept)

    @property
    def num_val(self) -> int:
        """Samples of validation."""
        return len(self.val) if self._val_kept is None else len(self._val_kept)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.train.classes)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return how many batches an epoch has, for every worker."""
        return -(-self.num_train // batch_size)

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
    ) -> Iterator[Iterator[Batch]]:
        """Stream epochs ``start`` to ``stop`` (excluded, counted from 0); the work starts at once.

        Take the batches of an epoch before the next epoch. To end early, drop the iterator (or ``close`` it).

        Args:
            start: First epoch.
            stop: The epoch after the last.
            batch_size: Samples of a step, over all workers.
            augment: What is done to each picture.
            rank: Of this worker.
            world_size: How many workers there are; each gets the rank-th slice of every global batch. See
                :class:`~autodl_ray.data.stream.order.Plan` for the last batch.
            image_size: Another side than the preprocessing's, in pixels (progressive resizing).
            skip_batches: Batches of the first epoch that were seen already.

        Yields:
            For each epoch an iterator of its batches.

        Raises:
            SpecError: The batch is smaller than the number of workers.
            DatasetError: Too many pictures cannot be read.
        """
        plan = Plan(self.num_train, batch_size, self.seed, rank, world_size)
        preprocess = self.preprocess if image_size is None else replace(self.preprocess, size=image_size)
        if self._train_kept is None:
            job = Job.of(self.train, plan, shuffled=True, preprocess=preprocess, augment=augment, seed=self.seed)
            batches = self._streamed(job, self.train, start, stop, skip_batches)
        else:
            batches = self._kept(plan, start, stop, skip_batches, preprocess, augment)
        return _by_epoch(batches, start, stop)

    def val_batches(self, *, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the validation pictures in the order of the index, never augmented.

        Worker ``rank`` gets the rank-th contiguous part; the parts together are the split, each sample once.
        """
        if self._val_kept is None:
            yield from self._val_streamed(batch_size, rank, world_size)
            return
        images = self._val_kept.square(self.preprocess.size)
        assert images is not None
        part = np.array_split(np.arange(self.num_val), world_size)[rank]
        for first in range(0, len(part), batch_size):
            chosen = part[first : first + batch_size]
            rows = self._val_kept.rows[chosen]
            yield Batch(images[chosen], self.val.labels[rows], self.val.ids[rows])

    def _val_streamed(self, batch_size: int, rank: int, world_size: int) -> Iterator[Batch]:
        part = np.array_split(np.arange(len(self.val)), world_size)[rank]
        mine = _part(self.val, part)
        plan = Plan(len(mine), batch_size, self.seed)
        job = Job.of(
            mine, plan, shuffled=False, preprocess=self.preprocess, augment=AugmentPolicy("none"), seed=self.seed
        )
        for _, batch in self._streamed(job, mine, 0, 1, 0):
            yield batch

    def _kept(
        self, plan: Plan, start: int, stop: int, skip: int, preprocess: Preprocess, augment: AugmentPolicy
    ) -> Iterator[tuple[int, Batch]]:
        square = self._train_square
        if augment.is_empty and square is not None and preprocess.size == self.preprocess.size:
            return self._kept_plain(square, plan, start, stop, skip)
        return Feed(lambda: self._kept_augmented(plan, start, stop, skip, preprocess, augment), depth=_DEPTH)

    def _kept_plain(
        self, square: KeptPictures, plan: Plan, start: int, stop: int, skip: int
    ) -> Iterator[tuple[int, Batch]]:
        images = square.square(self.preprocess.size)
        assert images is not None
        for epoch, positions in _positions(plan, start, stop, skip):
            yield epoch, self._batch(images[positions], square.rows[positions])

    def _kept_augmented(
        self, plan: Plan, start: int, stop: int, skip: int, preprocess: Preprocess, augment: AugmentPolicy
    ) -> Iterator[tuple[int, Batch]]:
        assert self._train_kept is not None
        views, rows, fill = self._train_kept.views(), self._train_kept.rows, fill_of(preprocess)
        for epoch, positions in _positions(plan, start, stop, skip):
            images = np.empty((len(positions), preprocess.size, preprocess.size, 3), dtype=np.uint8)
            for i, position in enumerate(positions):
                if augment.is_empty:
                    images[i] = fit_image(views[position], size=preprocess.size, fit=preprocess.fit, fill=fill)
                    continue
                sample_id = int(self.train.ids[rows[position]])
                seed = augment_seed(self.seed, epoch=epoch, sample_id=sample_id)
                images[i] = augmented(views[position], augment, preprocess=preprocess, rng_seed=seed)
            yield epoch, self._batch(images, rows[positions])

    def _batch(self, images: ImageArray, rows: npt.NDArray[np.int64]) -> Batch:
        return Batch(images, self.train.labels[rows], self.train.ids[rows])

    def _streamed(self, job: Job, samples: Samples, start: int, stop: int, skip: int) -> Iterator[tuple[int, Batch]]:
        slice_bytes = job.plan.slice_size * 3 * job.preprocess.size**2
        per_block = max(1, min(_BLOCK_SAMPLES // job.plan.slice_size, _BLOCK_BYTES // slice_bytes))
        blocks = job.plan.blocks(start, stop, skip=skip, batches_per_block=per_block)

        def make() -> Iterator[tuple[int, Batch]]:
            made = _execute(job, blocks, per_block * slice_bytes)
            return self._cut(made, job, samples)

        return Feed(make, depth=_DEPTH)

    def _cut(self, blocks: Iterable[BlockData], job: Job, samples: Samples) -> Iterator[tuple[int, Batch]]:
        """Cut blocks into batches, leaving out the pictures that could not be read."""
        for block in blocks:
            self._note({samples.paths[p]: job.reason(int(p)) for p in block.positions[~block.ok]})
            for step in range(int(block.steps[0]), int(block.steps[-1]) + 1):
                chosen = (block.steps == step) & block.ok
                rows = block.positions[chosen]
                if len(rows) == 0:
                    raise DatasetError(
                        "No picture of a whole batch can be read.", seen=some(self.unreadable), hint="check the folder"
                    )
                yield block.epoch, Batch(block.images[chosen], samples.labels[rows], samples.ids[rows])

    def _note(self, unreadable: dict[str, str]) -> None:
        self.unreadable.update(unreadable)
        total = len(self.train) + len(self.val)
        if len(self.unreadable) > self.max_unreadable * total:
            shown = some((f"{path} ({why.rstrip('.')})" for path, why in self.unreadable.items()), 3)
            raise DatasetError(
                f"{len(self.unreadable)} of {total} pictures could not be read.",
                seen=shown,
                accepted=f"at most {self.max_unreadable:.0%} (data.max_unreadable)",
                hint="was the folder changed after it was checked? Run again to check it anew",
            )


def _check_kinds(train: Samples, val: Samples) -> None:
    # Not isinstance of the base: a test split is a Samples too, and must never come here.
    for name, given, wanted in (("training", train, TrainSamples), ("validation", val, ValSamples)):
        if not isinstance(given, wanted):
            raise DatasetError(
                f"The {name} stream does not take this split.", seen=type(given).__name__, accepted=wanted.__name__
            )


def _object_store_share() -> int:
    if not ray_is_on():
        return _MEMORY_LIMIT
    import ray

    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(0.3 * resources.get("object_store_memory", 2**30))


def _keep_small(samples: TrainSamples, limit: int) -> KeptPictures | None:
    side, mean_bytes = estimate_sides(samples)
    if side > _KEPT_SIDE or mean_bytes * len(samples) > limit:
        return None
    return keep_raw(samples, most_bytes=limit)


def _part(samples: Samples, part: npt.NDArray[np.int64]) -> Samples:
    paths = tuple(samples.paths[i] for i in part)
    return Samples(Path(samples.root), samples.ids[part], paths, samples.labels[part], samples.classes)


def _execute(job: Job, blocks: Iterable[Block], block_bytes: int) -> Iterator[BlockData]:
    if ray_is_on():
        return ray_blocks(job, blocks, block_bytes=block_bytes)
    return thread_blocks(job, blocks)


def _positions(plan: Plan, start: int, stop: int, skip: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    for epoch in range(start, stop):
        for positions in plan.batches(epoch, skip if epoch == start else 0):
            yield epoch, positions


def _by_epoch(batches: Iterator[tuple[int, Batch]], start: int, stop: int) -> Iterator[Iterator[Batch]]:
    """Yield one iterator an epoch; batches that were not taken of an epoch are passed over."""
    waiting: list[tuple[int, Batch]] = []

    def take(epoch: int) -> Iterator[Batch]:
        while True:
            item = waiting.pop() if waiting else next(batches, None)
            if item is None:
                return
            if item[0] > epoch:
                waiting.append(item)
                return
            if item[0] == epoch:
                yield item[1]

    try:
        for epoch in range(start, stop):
            yield take(epoch)
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()
