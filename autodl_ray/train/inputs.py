"""From a batch of the stream to what the network and the loss take: mixed, on the device, normalised."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autodl_ray.augment.mixing import BatchMixer, mix_images, mix_labels
from autodl_ray.images import ImageArray
from autodl_ray.models.preprocess import normal_factors, normalize_by
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

    @functools.cached_property
    def _factors(self) -> tuple[Tensor, Tensor]:
        return normal_factors(self.config.preprocess, self.device)

    @functools.cached_property
    def _mixer(self) -> BatchMixer:
        return BatchMixer(mixup=self.config.mixup, cutmix=self.config.cutmix, seed=self.config.seed)

    def make(self, batch: BatchLike, *, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return the pictures and the targets of a step.

        Args:
            batch: Of the training stream.
            epoch: Counted from 0.
            step: Of the epoch, counted from 0.

        Returns:
            (B, 3, S, S) float32, and (B,) int64 classes or, where pictures were mixed, (B, C) float32 soft labels.
        """
        return self.tensors(*self.mixed(batch, epoch=epoch, step=step))

    def tensors(
        self, pictures: ImageArray, targets: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    ) -> tuple[Tensor, Tensor]:
        """Bring what :meth:`mixed` made, or a part of it, to the device; as :meth:`make` returns it."""
        images = normalize_by(torch.from_numpy(pictures).to(self.device), self._factors)
        return images, torch.from_numpy(targets).to(self.device)

    def mixed(
        self, batch: BatchLike, *, epoch: int, step: int
    ) -> tuple[ImageArray, npt.NDArray[np.int64] | npt.NDArray[np.float32]]:
        """Return what the network sees as pictures: (B, S, S, 3) uint8, and (B,) int64 or (B, C) float32 labels."""
        config = self.config
        mixer = self._mixer
        if not mixer.is_on:
            return batch.images, batch.labels
        mix = mixer.draw(len(batch.images), size=batch.images.shape[1], epoch=epoch, step=step)
        return mix_images(batch.images, mix), mix_labels(batch.labels, mix, num_classes=config.num_classes)
