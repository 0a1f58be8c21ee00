"""From a batch of the stream to what the network and the loss take: mixed, on the device, normalised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autodl_ray.augment.mixing import BatchMixer, mix_images, mix_labels
from autodl_ray.models.preprocess import normalize
from autodl_ray.train.config import FitConfig
from autodl_ray.train.source import BatchLike

__all__ = ["StepInputs"]


@dataclass(frozen=True)
class StepInputs:
    """Makes the tensors of a training step.

    Attributes:
        config: Of the training: preprocessing, classes, mixing and seed.
        device: Where the tensors go.
    """

    config: FitConfig
    device: torch.device

    def make(self, batch: BatchLike, *, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return the pictures and the targets of a step.

        Args:
            batch: Of the training stream.
            epoch: Counted from 0.
            step: Of the epoch, counted from 0.

        Returns:
            (B, 3, S, S) float32, and (B,) int64 classes or, where pictures were mixed, (B, C) float32 soft labels.
        """
        config = self.config
        mixer = BatchMixer(mixup=config.mixup, cutmix=config.cutmix, seed=config.seed)
        pictures, targets = batch.images, torch.from_numpy(batch.labels)
        if mixer.is_on:
            mix = mixer.draw(len(pictures), size=pictures.shape[1], epoch=epoch, step=step)
            pictures = mix_images(pictures, mix)
            targets = torch.from_numpy(mix_labels(batch.labels, mix, num_classes=config.num_classes))
        return normalize(torch.from_numpy(pictures).to(self.device), config.preprocess), targets.to(self.device)
