"""The training loss: one function for hard and soft targets, with label smoothing and class weights."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["classification_loss"]


def classification_loss(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Return the mean cross-entropy of a batch, as a scalar.

    The mean is over the samples, also with class weights: so the loss of a batch does not depend on how it is cut
    among workers. Weights whose mean over the training samples is 1 leave the size of the gradient as it was.

    Args:
        logits: (B, C) float32.
        targets: (B,) int64 classes, or (B, C) float32 rows that sum to 1 (soft labels of mixed pictures). A row
            with a single 1 gives the same loss as its class.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1)
            (Szegedy et al., Rethinking the Inception Architecture, 2016).
        class_weights: (C,) float32 factors, or None. They weigh the terms of the sum over classes.
    """
    total = F.cross_entropy(logits, targets, weight=class_weights, label_smoothing=label_smoothing, reduction="sum")
    return total / len(logits)
