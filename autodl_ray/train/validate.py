"""Validation: the scores of a model on the validation stream, over all workers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from autodl_ray.images import Preprocess
from autodl_ray.models.preprocess import normalize
from autodl_ray.tasks.classification import score
from autodl_ray.train.peers import Peers
from autodl_ray.train.precision import autocast
from autodl_ray.train.slices import Slices

if TYPE_CHECKING:
    from autodl_ray.train.source import BatchLike

__all__ = ["Validation", "validate"]


class Validation(NamedTuple):
    """What a model says of the whole validation split, the same on every worker.

    Attributes:
        scores: ``accuracy``, ``macro_f1`` and ``loss``.
        probabilities: (N, C) float32.
        labels: (N,) int64.
    """

    scores: dict[str, float]
    probabilities: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def validate(
    model: nn.Module,
    batches: Iterable[BatchLike],
    *,
    preprocess: Preprocess,
    precision: str,
    num_classes: int,
    peers: Peers,
    slices: Slices | None = None,
    micro_batch: int | None = None,
) -> Validation:
    """Score ``model`` (left in the mode it was in), in the threads of ``slices`` where there are any.

    Args:
        model: The network.
        batches: Of this worker's part of the split.
        preprocess: How pictures become the input.
        precision: Of the forward pass.
        num_classes: C.
        peers: The other workers.
        slices: The threads.
        micro_batch: Most pictures at a time; None: as they come.
    """
    training = model.training
    model.eval()

    def probabilities(images: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(peers.device, precision):
            logits: Tensor = model(images)
        return logits.float().softmax(dim=1).cpu()

    parts: list[np.ndarray] = []
    for batch in batches:
        made: list[Tensor] = []
        size = micro_batch or len(batch.images)
        for at in range(0, len(batch.images), max(size, 1)):
            images = normalize(torch.from_numpy(batch.images[at : at + size]).to(peers.device), preprocess)
            made += slices.map(probabilities, images) if slices else [probabilities(images)]
        parts.append(np.column_stack([torch.cat(made).numpy(), batch.labels.astype(np.float32)]))
    model.train(training)
    rows = np.concatenate(parts) if parts else np.zeros((0, num_classes + 1), dtype=np.float32)
    gathered = peers.gather(rows.astype(np.float32))
    labels = gathered[:, -1].astype(np.int64)
    return Validation(score(gathered[:, :-1], labels), gathered[:, :-1], labels)
