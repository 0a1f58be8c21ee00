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
        class_weights: (C,) float32 factors, or None. A sample's loss, smoothing included, is multiplied by the factor
            of its class; a mixed one's parts each by their own. (torch's own ``weight`` would weigh the smoothed
            part by class: at 20:1 it teaches that a sixth of every common picture shows the rare class.)
    """
    if class_weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="sum") / len(logits)
    hard = targets.ndim == 1
    weighted = (F.one_hot(targets, logits.shape[1]) if hard else targets) * class_weights
    smoothed = (1 - label_smoothing) * weighted + label_smoothing * weighted.mean(dim=1, keepdim=True)
    return -(smoothed * F.log_softmax(logits, dim=1)).sum() / len(logits)
