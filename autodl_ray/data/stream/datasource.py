"""The blocks of a stream as a data source of Ray Data: one read task a block, decode and augmentation fused in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ray
from ray.data import Datasource, ReadTask
from ray.data.block import Block as RayBlock
from ray.data.block import BlockAccessor, BlockMetadata

from autodl_ray.data.stream.order import Block

__all__ = ["BlockSource"]


class BlockSource(Datasource):
    """Hands out blocks in the order given; a task carries three numbers and a reference to the job."""

    def __init__(self, shared: ray.ObjectRef[Any], blocks: list[Block], block_bytes: int) -> None:
        self._shared = shared
        self._blocks = blocks
        self._block_bytes = block_bytes

    def get_name(self) -> str:
        """Return the name of the operator."""
        return "Pictures"

    def estimate_inmemory_data_size(self) -> int:
        """Return the bytes of all blocks."""
        return self._block_bytes * len(self._blocks)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return one task a block, in order."""
        facts = BlockMetadata(num_rows=None, size_bytes=self._block_bytes, input_files=None, exec_stats=None)
        return [ReadTask(_Read(self._shared, block), facts) for block in self._blocks]


class _Read:
    """What a task does."""

    def __init__(self, shared: ray.ObjectRef[Any], block: Block) -> None:
        self._shared = shared
        self._block = block

    def __call__(self) -> Iterable[RayBlock]:
        import cv2

        cv2.setNumThreads(1)  # tasks run side by side: threads of each would only take turns
        data = ray.get(self._shared).run(self._block)
        count = len(data.positions)
        rows = {
            "image": data.images,
            "position": data.positions,
            "ok": data.ok,
            "epoch": [data.epoch] * count,
            "step": data.steps,
        }
        return [BlockAccessor.batch_to_block(rows)]
