"""The network at the start of a training: its weights, its head, its frozen norms."""

from __future__ import annotations

from pathlib import Path

import torch

from autodl_ray.models.classifier import Classifier, build, set_head
from autodl_ray.models.folding import freeze_norms
from autodl_ray.train.config import FitConfig
from autodl_ray.train.head import load_head

__all__ = ["initial_model"]


def initial_model(config: FitConfig, *, head_init: Path | None, fresh: bool, device: torch.device) -> Classifier:
    """Build the network on its device, in training mode and channels-last.

    Args:
        config: Of the training.
        head_init: A head that :func:`autodl_ray.train.head.fit_head` found; None: as it comes.
        fresh: False where a checkpoint will fill in the weights, so that none need be read.
        device: Where it is trained.
    """
    model = build(
        config.model,
        num_classes=config.num_classes,
        image_size=config.preprocess.size,
        weights=config.weights if fresh else "none",
        dropout=config.dropout,
        seed=config.seed,
    )
    if head_init is not None:
        set_head(model, *load_head(head_init))
    if config.freeze_norms:
        freeze_norms(model.backbone, config.preprocess.size)
    return model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload,no-any-return]
