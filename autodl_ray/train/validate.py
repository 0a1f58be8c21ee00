"""Validation: the scores of a model on the validation stream, over all workers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from autodl_ray.images import Preprocess
from autodl_ray.models.preprocess import normalize
from autodl_ray.tasks.classification import score
from autodl_ray.train.peers import Peers
from autodl_ray.train.precision import Precision, autocast
from autodl_ray.train.slices import Slices

if TYPE_CHECKING:
    from autodl_ray.train.source import BatchLike

__all__ = ["validate"]


def validate(
    model: nn.Module,
    batches: Iterable[BatchLike],
    *,
    preprocess: Preprocess,
    precision: Precision,
    num_classes: int,
    peers: Peers,
    slices: Slices | None = None,
) -> dict[str, float]:
    """Score ``model`` (left in the mode it was in), in the threads of ``slices`` where there are any.

    Returns:
        ``accuracy``, ``macro_f1`` and ``loss`` over the whole split, the same on every worker.
    """
    training = model.training
    model.eval()

    def probabilities(images: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(peers.device, precision):
            logits: Tensor = model(images)
        return logits.float().softmax(dim=1).cpu()

    parts: list[np.ndarray] = []
    for batch in batches:
        images = normalize(torch.from_numpy(batch.images).to(peers.device), preprocess)
        made = slices.map(probabilities, images) if slices else [probabilities(images)]
        parts.append(np.column_stack([torch.cat(made).numpy(), batch.labels.astype(np.float32)]))
    model.train(training)
    rows = np.concatenate(parts) if parts else np.zeros((0, num_classes + 1), dtype=np.float32)
    gathered = peers.gather(rows.astype(np.float32))
    return score(gathered[:, :-1], gathered[:, -1].astype(np.int64))
