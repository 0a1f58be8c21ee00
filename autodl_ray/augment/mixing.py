"""MixUp and CutMix: pictures of a batch mixed with each other, and their labels with them.

MixUp blends two pictures (Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018); CutMix puts a rectangle of
one onto the other (Yun et al., CutMix, 2019). Both draw the share of the first from Beta(alpha, alpha).

What holds: the kind, the share and the rectangle of a step depend on (seed, epoch, step) alone, on every number of
workers. The partners do too, but each worker mixes within its own slice of the batch, so *which* pictures meet
depends on the number of workers (never on which machine, process or resume).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from autodl_ray.images import ImageArray
from autodl_ray.seeding import rng_for

__all__ = ["BatchMixer", "Mix", "mix_images", "mix_labels"]

Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True)
class Mix:
    """What is done to a batch.

    Attributes:
        kind: ``mixup`` or ``cutmix``.
        share: Of the picture's own pixels (mixup) or area (cutmix), in [0, 1]; the rest is the partner's.
        partners: (B,) int64, the row of each picture's partner.
        rectangle: (top, left, bottom, right) in pixels that come from the partner; of cutmix only.
    """

    kind: Literal["mixup", "cutmix"]
    share: float
    partners: npt.NDArray[np.int64] = field(repr=False)
    rectangle: Rectangle = (0, 0, 0, 0)


@dataclass(frozen=True)
class BatchMixer:
    """Which mixing is done, and how strong; where both are on, each step takes one of them, evenly.

    Attributes:
        mixup: alpha of MixUp; 0: off.
        cutmix: alpha of CutMix; 0: off.
        seed: Root seed.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    seed: int = 0

    @property
    def is_on(self) -> bool:
        """Whether anything is mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def draw(self, count: int, *, size: int, epoch: int, step: int) -> Mix:
        """Choose what is done in a step, from (seed, epoch, step) alone.

        Args:
            count: B, pictures in this worker's slice of the batch.
            size: S, their side in pixels.
            epoch: Counted from 0.
            step: Of the epoch, counted from 0.

        Raises:
            ValueError: Neither is on.
        """
        if not self.is_on:
            raise ValueError("neither MixUp nor CutMix is on")
        rng = rng_for(self.seed, "mixing", epoch, step)
        both = self.mixup > 0 and self.cutmix > 0
        cuts = bool(rng.random() < 0.5) if both else self.cutmix > 0
        alpha = self.cutmix if cuts else self.mixup
        share = float(rng.beta(alpha, alpha))
        centre = rng.random(2)
        partners = rng.permutation(count).astype(np.int64)
        if not cuts:
            return Mix("mixup", share, partners)
        rectangle = _rectangle(share, size, centre)
        covered = (rectangle[2] - rectangle[0]) * (rectangle[3] - rectangle[1])
        return Mix("cutmix", 1 - covered / size**2, partners, rectangle)


def _rectangle(share: float, size: int, centre: npt.NDArray[np.float64]) -> Rectangle:
    """A square of ``1 - share`` of the area around a random centre, cut at the edges (as the paper does)."""
    half = size * (1 - share) ** 0.5 / 2
    y, x = centre * size
    top, bottom = (int(np.clip(round(v), 0, size)) for v in (y - half, y + half))
    left, right = (int(np.clip(round(v), 0, size)) for v in (x - half, x + half))
    return top, left, bottom, right


def mix_images(images: ImageArray, mix: Mix) -> ImageArray:
    """Return (B, S, S, 3) uint8 mixed pictures; ``images`` are not changed."""
    if mix.kind == "cutmix":
        top, left, bottom, right = mix.rectangle
        mixed = images.copy()
        mixed[:, top:bottom, left:right] = images[mix.partners, top:bottom, left:right]
        return mixed
    import cv2

    rows = images.reshape(len(images), -1)  # two dimensions: OpenCV takes no more
    blended = cv2.addWeighted(rows, mix.share, rows[mix.partners], 1 - mix.share, 0.0)
    return np.asarray(blended, dtype=np.uint8).reshape(images.shape)


def mix_labels(labels: npt.NDArray[np.int64], mix: Mix, *, num_classes: int) -> npt.NDArray[np.float32]:
    """Return (B, C) float32 soft labels: ``share`` of the own class and the rest of the partner's; rows sum to 1."""
    own = np.eye(num_classes, dtype=np.float32)[labels]
    return np.float32(mix.share) * own + np.float32(1 - mix.share) * own[mix.partners]
