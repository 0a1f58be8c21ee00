"""Small copies of pictures and what can be computed from them: pixels, gradients, and a perceptual hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["COPY_SIDE", "gradient_features", "grey", "perceptual_hash", "pixel_features", "small_copy"]

COPY_SIDE = 32
_CELL = 4
_ANGLES = 9
_BLOCK = 1_024

Floats = npt.NDArray[np.float32]


def small_copy(picture: Image) -> npt.NDArray[np.uint8]:
    """Return (32, 32, 3) uint8 RGB, stretched, bilinear with antialiasing."""
    from PIL import Image as PillowImage

    return np.asarray(picture.resize((COPY_SIDE, COPY_SIDE), PillowImage.Resampling.BILINEAR), dtype=np.uint8)


def perceptual_hash(picture: Image) -> int:
    """Return the 64 bits of imagehash's ``phash``: signs of the low frequencies of a 32 × 32 grey copy."""
    import imagehash

    bits = imagehash.phash(picture).hash.reshape(-1)
    return int(np.packbits(bits).view(">u8")[0])


def grey(copies: npt.NDArray[np.uint8]) -> Floats:
    """Return (N, 32, 32) float32 luma (ITU-R BT.601) of small copies."""
    return np.asarray(copies, dtype=np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def pixel_features(copies: npt.NDArray[np.uint8]) -> Floats:
    """Return (N, 304) float32 in [0, 1]: grey at 16 × 16 and colour at 4 × 4."""
    colour = np.asarray(copies, dtype=np.float32) / 255
    fine = grey(copies).reshape(-1, 16, 2, 16, 2).mean(axis=(2, 4)) / 255
    coarse = colour.reshape(-1, 4, 8, 4, 8, 3).mean(axis=(2, 4))
    return np.concatenate([fine.reshape(len(copies), -1), coarse.reshape(len(copies), -1)], axis=1)


def gradient_features(copies: npt.NDArray[np.uint8]) -> Floats:
    """Return (N, 1764) float32: histograms of oriented gradients (Dalal and Triggs, 2005).

    Cells of 4 × 4 px, 9 unsigned angles, blocks of 2 × 2 cells, square root of the L2-normalised block.
    """
    return np.concatenate([_gradients(grey(copies[start : start + _BLOCK])) for start in range(0, len(copies), _BLOCK)])


def _gradients(images: Floats) -> Floats:
    right, down = np.zeros_like(images), np.zeros_like(images)
    right[:, :, 1:-1] = images[:, :, 2:] - images[:, :, :-2]
    down[:, 1:-1] = images[:, 2:] - images[:, :-2]
    strength = np.hypot(right, down)
    angle = (np.arctan2(down, right) % np.pi) / np.pi * _ANGLES
    lower = np.floor(angle).astype(np.int64)
    share = angle - lower
    lower %= _ANGLES
    cells = COPY_SIDE // _CELL
    votes = np.zeros((len(images), cells, cells, _ANGLES), dtype=np.float32)
    for number in range(_ANGLES):
        weight = np.where(lower == number, strength * (1 - share), 0)
        weight += np.where((lower + 1) % _ANGLES == number, strength * share, 0)
        votes[..., number] = weight.reshape(-1, cells, _CELL, cells, _CELL).sum(axis=(2, 4))
    corners = [votes[:, :-1, :-1], votes[:, 1:, :-1], votes[:, :-1, 1:], votes[:, 1:, 1:]]
    blocks = np.concatenate(corners, axis=-1)
    blocks /= np.linalg.norm(blocks, axis=-1, keepdims=True) + 2.55  # 1 % of full contrast: noise is not blown up
    features: Floats = np.sqrt(blocks).reshape(len(images), -1)
    return features
