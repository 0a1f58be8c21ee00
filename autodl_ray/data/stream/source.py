"""The stream of batches that training and selection take their pictures from."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts import TrainSamples, ValSamples
from autodl_ray.augment import AugmentPolicy
from autodl_ray.data.records import some
from autodl_ray.data.sampling import sample_weights
from autodl_ray.data.stream.batch import Batch, Item, by_epoch, cut
from autodl_ray.data.stream.blocks import Block, BlockData, blocks_of, plain_blocks
from autodl_ray.data.stream.cache import PhotoCache, calls_of
from autodl_ray.data.stream.execution import STREAM_CPUS, Call, Runner, Threads, fetch, in_order, runner_here
from autodl_ray.data.stream.feed import Feed
from autodl_ray.data.stream.job import Job, imported, train_detail
from autodl_ray.data.stream.kept import KeptTrain
from autodl_ray.data.stream.limits import MEMORY_LIMIT, estimate_sizes, keeping_limit
from autodl_ray.data.stream.order import Plan
from autodl_ray.data.stream.pictures import Pictures
from autodl_ray.errors import DatasetError
from autodl_ray.images import Preprocess
from autodl_ray.seeding import seed_for

__all__ = ["Batch", "StreamSource"]

_TINY_SIDE = 64
_BLOCK_SAMPLES = 192
_BLOCK_BYTES = 32 * 2**20
_RAMP = 2
_DEPTH = 3


@dataclass(frozen=True)
class StreamSource:
    """Where batches come from; made on the driver, picklable, used in the processes that train.

    Three ways, the same batches:

    - Tiny pictures (at most 64 px a side) are decoded once, and augmented in the process that trains.
    - Photos that fit in memory decoded are kept so in the object store: the first epoch fills it and starts at once,
      later epochs read no file. Tasks of Ray augment them.
    - Other photos are decoded again in every epoch, by the task that augments them.

    Without a running Ray, threads of this process stand in for its tasks. The order of the batches depends on (seed,
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
    _tiny: KeptTrain | None = field(default=None, repr=False)
    _photos: PhotoCache | None = field(default=None, repr=False)
    _val_kept: tuple[Any, ...] | None = field(default=None, repr=False)
    _last: Any = field(default=None, repr=False)

    @classmethod
    def make(
        cls,
        train: TrainSamples,
        val: ValSamples,
        preprocess: Preprocess,
        *,
        seed: int,
        memory_limit_bytes: int = MEMORY_LIMIT,
        max_unreadable: float = 0.2,
    ) -> StreamSource:
        """Decide what is kept, and begin to decode it: with Ray, photos are decoded after this has returned.

        Args:
            train: Training split; only its pictures are augmented.
            val: Validation split; its pictures are decoded and scaled once.
            preprocess: Size and fit rule of the batches.
            seed: Root seed.
            memory_limit_bytes: Most bytes of decoded pictures that are kept; also at most 30 % of the object store
                and half of the free memory.
            max_unreadable: Share of unreadable pictures above which reading fails.

        Raises:
            DatasetError: A split of another kind was given, or too many pictures cannot be read.
        """
        _check_kinds(train, val)
        source = cls(train, val, preprocess, seed, max_unreadable)
        with closing(runner_here()) as runner:
            return source._keeping(keeping_limit(memory_limit_bytes), runner)

    def _keeping(self, limit: int, runner: Runner) -> StreamSource:
        val_bytes = len(self.val) * 3 * self.preprocess.size**2
        keeps_val = val_bytes <= limit
        limit -= val_bytes if keeps_val else 0
        detail = train_detail(self.preprocess)
        sizes = estimate_sizes(self.train, at_least=detail)
        fits, is_tiny = sizes.total_bytes <= limit, sizes.longest <= _TINY_SIDE and self.train.boxes is None
        tiny = photos = None
        if fits and is_tiny:
            tiny = KeptTrain.make(self.train, self.preprocess, runner, most_bytes=limit, at_least=detail)
        if fits and not is_tiny:
            runner.warm(imported)  # while the others decode the first part, for which the first batch waits
            order = Plan(len(self.train), 1, self.seed).order(0)
            photos = PhotoCache.begin(self._train_job(AugmentPolicy("none")), order, runner)
        val_kept = self._begin_val(runner, now=tiny is not None) if keeps_val else None
        if tiny is not None:
            self._note(tiny.raw.unreadable)
            return replace(self, _tiny=tiny, _val_kept=val_kept)
        begun = [*(photos.parts if photos else ()), *(val_kept or ())]
        return replace(self, _photos=photos, _val_kept=val_kept, _last=begun[-1] if begun else None)

    def _begin_val(self, runner: Runner, *, now: bool) -> tuple[Any, ...]:
        job = self._val_job()
        blocks = plain_blocks(0, len(self.val), _BLOCK_SAMPLES)
        if now:  # nothing may be left to tasks that could not run beside a training that reserves every CPU
            with closing(Threads()) as threads:
                made = threads.chain([(Job.run, (job, block)) for block in blocks])
            for block, data in zip(blocks, made, strict=True):
                self._note({self.val.paths[block.positions[row]]: why for row, why in data.failed.items()})
            return tuple(runner.share(data) for data in made)
        shared = runner.share(job)
        return tuple(runner.chain([(Job.run, (shared, block)) for block in blocks]))

    @property
    def is_streamed(self) -> bool:
        """Whether training pictures are decoded again in every epoch."""
        return self._tiny is None and self._photos is None

    @property
    def cpus_needed(self) -> float:
        """CPUs of the cluster that reservations must leave free, or the stream waits for ever."""
        return STREAM_CPUS if self._tiny is None or self._val_kept is None else 0.0

    @property
    def num_train(self) -> int:
        """Samples of an epoch."""
        return len(self.train) if self._tiny is None else len(self._tiny.raw)

    @property
    def num_val(self) -> int:
        """Samples of validation."""
        return len(self.val)

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
        balanced: bool = False,
        replicate: int = 0,
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
            balanced: Draw samples of rare classes more often, so that all classes come as often; an epoch has as
                many samples as before. See :func:`~autodl_ray.data.sampling.sample_weights`.
            replicate: Another draw of order and augmentation from the same seed; 0: the first.

        Yields:
            For each epoch an iterator of its batches.

        Raises:
            SpecError: The batch is smaller than the number of workers.
            DatasetError: Too many pictures cannot be read, or an epoch does not have the samples that it should.
        """
        weights = self._sample_weights() if balanced else None
        seed = seed_for(self.seed, "replicate", replicate) if replicate else self.seed
        plan = Plan(self.num_train, batch_size, seed, rank, world_size, weights)
        preprocess = self.preprocess if image_size is None else replace(self.preprocess, size=image_size)
        if self._tiny is None:
            job = replace(self._train_job(augment), preprocess=preprocess, seed=seed)
            items = self._streamed(job, plan, start=start, stop=stop, skip=skip_batches)
        else:
            items = self._tiny.items(
                plan,
                start=start,
                stop=stop,
                skip=skip_batches,
                preprocess=preprocess,
                augment=augment,
                seed=seed,
            )
            if not augment.is_empty:
                items = Feed(partial(iter, items), depth=_DEPTH)

        def rows(epoch: int) -> int:
            return sum(len(part) for part in plan.batches(epoch, skip_batches if epoch == start else 0))

        return by_epoch(items, start, stop, rows=rows)

    def _sample_weights(self) -> npt.NDArray[np.float64]:
        weights = sample_weights(self.train)
        return weights if self._tiny is None else weights[self._tiny.raw.rows]

    def val_batches(self, *, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the validation split in its own order; each worker gets a part of it, in turn.

        Raises:
            DatasetError: Too many pictures cannot be read.
        """
        mine = np.array_split(np.arange(len(self.val)), world_size)[rank]
        first, stop = (int(mine[0]), int(mine[-1]) + 1) if len(mine) else (0, 0)
        for block, data in self._val_blocks(first, stop):
            lengths = [min(batch_size, len(data) - at) for at in range(0, len(data), batch_size)]
            made = [(replace(block, lengths=tuple(lengths)), data)]
            for item in cut(made, self.val, self._note, may_be_empty=True):
                yield item.batch

    def _val_blocks(self, first: int, stop: int) -> Iterator[tuple[Block, BlockData]]:
        """Yield samples ``first`` to ``stop`` (excluded) of validation."""
        if self._val_kept is None:
            yield from self._run(self._val_job(), plain_blocks(first, stop, _BLOCK_SAMPLES), _BLOCK_SAMPLES)
            return
        blocks = plain_blocks(0, len(self.val), _BLOCK_SAMPLES)
        for number in range(first // _BLOCK_SAMPLES, -(-stop // _BLOCK_SAMPLES)):
            begins = number * _BLOCK_SAMPLES
            part = slice(max(first - begins, 0), min(stop - begins, _BLOCK_SAMPLES))
            yield blocks[number].part(part), fetch(self._val_kept[number]).part(part)

    def _streamed(self, job: Job, plan: Plan, *, start: int, stop: int, skip: int) -> Iterator[Item]:
        slice_bytes = plan.slice_size * 3 * job.preprocess.size**2
        most = max(1, min(_BLOCK_SAMPLES // plan.slice_size, _BLOCK_BYTES // slice_bytes))

        def items() -> Iterator[Item]:
            blocks = blocks_of(plan, start, stop, skip=skip, most=most, ramp=_RAMP)
            made = self._run(job, blocks, most * plan.slice_size, cache=self._photos, sharers=plan.world_size)
            with closing(made):
                yield from cut(made, self.train, self._note)

        return Feed(items, depth=_DEPTH)

    def _run(
        self,
        job: Job,
        blocks: Iterable[Block],
        block_samples: int,
        *,
        cache: PhotoCache | None = None,
        sharers: int = 1,
    ) -> Generator[tuple[Block, BlockData], None, None]:
        """Make blocks, in order, a few ahead of who takes them."""
        runner = runner_here()
        ahead = runner.ahead(block_samples * 3 * job.preprocess.size**2, sharers=sharers)
        begun: deque[Block] = deque()

        def calls() -> Iterator[Call]:
            for block, call in calls_of(runner.share(job), blocks, cache):
                begun.append(block)
                yield call

        with closing(in_order(runner, calls(), ahead=ahead, beside=self._last)) as made:
            for data in made:
                yield begun.popleft(), data

    def _train_job(self, augment: AugmentPolicy) -> Job:
        detail = train_detail(self.preprocess)
        return Job(Pictures.of(self.train), self.preprocess, augment, self.seed, detail)

    def _val_job(self) -> Job:
        return Job(Pictures.of(self.val), self.preprocess, None, self.seed, None)

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


def _check_kinds(train: object, val: object) -> None:
    # Not isinstance of the base: a test split is a Samples too, and must never come here.
    for name, given, wanted in (("training", train, TrainSamples), ("validation", val, ValSamples)):
        if not isinstance(given, wanted):
            raise DatasetError(
                f"The {name} stream does not take this split.", seen=type(given).__name__, accepted=wanted.__name__
            )
