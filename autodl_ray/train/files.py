"""What a training leaves on the disk after its epochs; what nobody waits for is written with a later epoch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from autodl_ray.errors import StoreError
from autodl_ray.train.checkpoint import Checkpoints
from autodl_ray.train.result import write_curves

__all__ = ["EpochFiles"]


class _Best(NamedTuple):
    """A copy of a model that is not written yet."""

    model: nn.Module
    rank: tuple[float, float]
    epoch: int


class EpochFiles:
    """Checkpoints, the weights of the best epochs, and the rows of all of them, in the folder of one training.

    Args:
        folder: Of this training alone.
        keep: Weights of so many best epochs are kept.

    Attributes:
        may_wait: Whether writing can wait at all: of several best epochs each is written at once.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder = folder
        self.checkpoints = Checkpoints(folder, keep=keep)
        self.may_wait = keep == 1
        self._best: _Best | None = None
        self._rows = 0

    def keep_best(self, model: nn.Module, *, rank: tuple[float, float], epoch: int, waits: bool) -> None:
        """Keep the weights of an epoch when they are among the best so far.

        Args:
            model: Whose state_dict is kept.
            rank: Orders the epochs, larger is better.
            epoch: 1-based.
            waits: Whether a copy in memory is enough until :meth:`save`.

        Raises:
            StoreError: They could not be written.
        """
        if self._best is not None and self._best.rank >= rank:
            return
        if waits:
            self._best = _Best(copy.deepcopy(model), rank, epoch)
            return
        self._best = None
        self.checkpoints.keep_best(model, rank=rank, epoch=epoch)

    def save(self, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Write all that waits, and then the checkpoint, so that nothing it knows of is missing.

        Args:
            state: Of the training.
            history: A row for each epoch.

        Raises:
            StoreError: It could not be written.
        """
        self._write_best()
        if len(history) != self._rows:
            write_curves(self.folder, history)
            self._rows = len(history)
        self.checkpoints.save(state)

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Write the best weights, where they wait, when an error ends the block; that error is what is told."""
        try:
            yield
        except BaseException:
            with suppress(StoreError):
                self._write_best()
            raise

    def _write_best(self) -> None:
        best, self._best = self._best, None
        if best is not None:
            self.checkpoints.keep_best(best.model, rank=best.rank, epoch=best.epoch)
