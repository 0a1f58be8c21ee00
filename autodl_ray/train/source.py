"""What the training loop needs of its batches: a contract, so that the loop depends on no stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from autodl_ray.augment.policy import AugmentPolicy

__all__ = ["BatchLike", "Source"]


class BatchLike(Protocol):
    """A batch of the stream."""

    @property
    def images(self) -> npt.NDArray[np.uint8]:
        """(B, S, S, 3) uint8."""
        ...

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(B,) int64."""
        ...


class Source(Protocol):
    """What the loop needs of :class:`autodl_ray.data.stream.StreamSource`."""

    @property
    def num_train(self) -> int:
        """Samples of the training split."""
        ...

    @property
    def num_val(self) -> int:
        """Samples of the validation split."""
        ...

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
    ) -> Iterator[Iterator[BatchLike]]:
        """Yield the epochs from ``start`` to before ``stop``.

        ``balanced``: with rare classes drawn more often; ``replicate``: another draw of order and augmentation.
        """
        ...

    def val_batches(self, *, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[BatchLike]:
        """Yield the validation split."""
        ...
