"""What the trainings of a run are fed: its stream, what is done about unequal classes, and a look at a batch."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from autodl_ray.artifacts import DatasetVersion
from autodl_ray.data.preview import write_train_batch
from autodl_ray.data.sampling import BalanceWay, class_counts, class_weights, decide_balance, describe_balance
from autodl_ray.data.stream import StreamSource
from autodl_ray.runtime import Context
from autodl_ray.seeding import seed_for
from autodl_ray.spec import DataSpec

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import numpy as np
    import numpy.typing as npt

    from autodl_ray.data.stream import Batch
    from autodl_ray.images import ImageArray, Preprocess
    from autodl_ray.train.config import FitConfig

__all__ = ["Balanced", "balance", "open_stream", "show_first_batch"]


@dataclass(frozen=True)
class Balanced:
    """What is done about unequal classes.

    Attributes:
        way: ``none``, ``weights`` or ``sampler``.
        weights: C factors by class, 1 on average over the training samples; None where nothing is done.
    """

    way: BalanceWay
    weights: tuple[float, ...] | None

    @property
    def loss_weights(self) -> tuple[float, ...] | None:
        """Factors of the loss of a training: none where rare classes are drawn more often instead."""
        return self.weights if self.way == "weights" else None


def balance(spec: DataSpec, version: DatasetVersion, *, context: Context) -> Balanced:
    """Decide by the training split what ``data.balance`` means, and say so where something is done."""
    counts = class_counts(version.train)
    decided = decide_balance(spec.balance, counts.tolist())
    if decided.way == "none":
        return Balanced("none", None)
    context.progress.say(describe_balance(decided, version.classes, counts.tolist()))
    return Balanced(decided.way, tuple(class_weights(version.train.labels, version.num_classes).tolist()))


def open_stream(
    version: DatasetVersion, preprocess: Preprocess, *, seed: int, max_unreadable: float = 0.2
) -> StreamSource:
    """Make the stream of training and validation batches; it begins to decode."""
    return StreamSource.make(
        version.train, version.val, preprocess, seed=seed_for(seed, "stream"), max_unreadable=max_unreadable
    )


def show_first_batch(source: StreamSource, config: FitConfig, path: Path) -> None:
    """Write what the network sees in the first step of a training, as a contact sheet with labels.

    Args:
        source: The stream.
        config: Of the training.
        path: Of the PNG.

    Raises:
        StoreError: It cannot be written.
    """
    import torch

    from autodl_ray.augment import AugmentPolicy
    from autodl_ray.train.inputs import StepInputs

    epochs = source.train_epochs(
        start=0,
        stop=1,
        batch_size=config.batch_size,
        augment=AugmentPolicy.parse(config.augment, magnitude=config.augment_magnitude),
        balanced=config.balanced,
    )
    with closing(cast("Generator[Iterator[Batch], None, None]", epochs)):
        batch = next(next(epochs))
    images, labels = StepInputs(config, torch.device("cpu")).mixed(batch, epoch=0, step=0)
    write_train_batch(_Seen(images, labels), source.train.classes, path)


@dataclass(frozen=True)
class _Seen:
    images: ImageArray
    labels: npt.NDArray[np.int64] | npt.NDArray[np.float32]
