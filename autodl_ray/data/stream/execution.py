"""Running blocks: as one streaming execution of Ray Data, or in threads of this process where there is no Ray."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from autodl_ray.data.stream.job import BlockData, Job
from autodl_ray.data.stream.order import Block

if TYPE_CHECKING:
    import ray

__all__ = ["STREAM_CPUS", "ray_blocks", "thread_blocks"]

STREAM_CPUS = 0.2
"""CPUs that must stay free of reservations where pictures are streamed: Ray Data would wait for ever without."""

_TASK_CPUS = 0.1
_MOST_BLOCKS = 4096
_AHEAD = 6
_PAUSE_S = 0.05


def thread_blocks(job: Job, blocks: Iterable[Block]) -> Iterator[BlockData]:
    """Make blocks in threads of this process, in order, a few ahead."""
    threads = max(1, min(8, os.cpu_count() or 1))
    waiting: deque[Future[BlockData]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="stream")
    try:
        for block in blocks:
            waiting.append(pool.submit(job.run, block))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def ray_blocks(job: Job, blocks: Iterable[Block], *, block_bytes: int) -> Iterator[BlockData]:
    """Make blocks by tasks of Ray Data, in order; all of them in one execution (up to 4,096 blocks each).

    Each task asks for 0.1 CPU, so that it fits beside training that reserves all but :data:`STREAM_CPUS`. How
    far the tasks run ahead is bounded by ``block_bytes``, not by the size of the object store: what was made
    for a trial that is stopped is lost.
    """
    import ray

    shared = ray.put(job)
    rest = iter(blocks)
    while chunk := list(itertools.islice(rest, _MOST_BLOCKS)):
        yield from _execute(shared, chunk, block_bytes)


def _execute(shared: ray.ObjectRef[Any], blocks: list[Block], block_bytes: int) -> Iterator[BlockData]:
    import ray.data

    from autodl_ray.data.stream.datasource import BlockSource

    _quiet_ray_data()
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, _pause_class()]
    context.execution_options.preserve_order = True
    context.execution_options.verbose_progress = False
    context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(
        object_store_memory=_AHEAD * block_bytes
    )
    tasks = max(2, int(ray.cluster_resources().get("CPU", 2)))  # type: ignore[no-untyped-call]
    with ray.data.DataContext.current(context):
        dataset = ray.data.read_datasource(
            BlockSource(shared, blocks, block_bytes),
            override_num_blocks=len(blocks),
            num_cpus=_TASK_CPUS,
            concurrency=min(tasks, len(blocks)),  # Ray warns when more are allowed than there can be
        )
        # No prefetching here: its thread would outlive an iterator that is closed early, with the blocks it holds.
        # Blocks are on this machine already, and the caller takes them in a thread of its own.
        with closing(iter(dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0))) as made:
            for rows in made:
                yield _block_data(rows)


def _pause_class() -> type[Any]:
    """Make a callback that pauses Ray Data's loop after each step.

    While the consumer is slower than the tasks (every training on a CPU), the loop has nothing to wait for and takes
    a whole core away from the training beside it (seen with py-spy in Ray 2.60).
    """
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    class Pause(ExecutionCallback):
        def on_execution_step(self, executor: Any) -> None:
            time.sleep(_PAUSE_S)

    return Pause


def _block_data(rows: dict[str, Any]) -> BlockData:
    return BlockData(
        images=rows["image"],
        positions=rows["position"],
        ok=rows["ok"].astype(np.bool_),
        epoch=int(rows["epoch"][0]),
        steps=rows["step"],
    )


def _quiet_ray_data() -> None:
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)
