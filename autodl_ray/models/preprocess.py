"""The reference of preprocessing in torch, which every exported graph has to match, and its fast 8-bit form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from autodl_ray.images import ImageArray, Preprocess

__all__ = ["Geometry", "geometry", "normalize", "preprocess_tensor", "preprocess_uint8"]


class Geometry(NamedTuple):
    """How a picture is scaled, and where the square input lies in the scaled picture (pixels).

    ``top`` and ``left`` are positive for a cut (``crop``) and negative for a margin (``pad``).
    """

    height: int
    width: int
    top: int
    left: int


def geometry(height: int, width: int, preprocess: Preprocess) -> Geometry:
    """Return the scaled size and the offsets of the fit rule, all in whole pixels.

    The side that is not fixed is ``(side · S + m // 2) // m`` with m the fixed side's length, at least 1.
    """
    size = preprocess.size
    if preprocess.fit == "stretch":
        return Geometry(size, size, 0, 0)
    fixed = min(height, width) if preprocess.fit == "crop" else max(height, width)
    new_h, new_w = (max(1, (side * size + fixed // 2) // fixed) for side in (height, width))
    return Geometry(new_h, new_w, _half(new_h - size), _half(new_w - size))


def _half(surplus: int) -> int:
    return surplus // 2 if surplus >= 0 else -(-surplus // 2)


def preprocess_tensor(image: ImageArray, preprocess: Preprocess) -> npt.NDArray[np.float32]:
    """Make the network's input from a decoded picture: the reference.

    Bilinear with antialiasing and half-pixel centres, in float32, without rounding between.

    Args:
        image: (H, W, 3) uint8 RGB.
        preprocess: Size, fit rule, mean and std.

    Returns:
        (3, S, S) float32, normalised; the margin of ``pad`` is 0, which is the mean.
    """
    where = geometry(image.shape[0], image.shape[1], preprocess)
    # [None] in torch and before the permutation: with other strides of the batch dimension torch 2.14 takes the
    # kernel for contiguous planes, which is wrong where the scaled width is 1 px.
    pixels = torch.from_numpy(np.ascontiguousarray(image))[None].permute(0, 3, 1, 2).float()
    scaled = F.interpolate(
        pixels, size=(where.height, where.width), mode="bilinear", antialias=True, align_corners=False
    )
    values: npt.NDArray[np.float32] = scaled[0].numpy()
    mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (preprocess.mean, preprocess.std))
    return _place((values / np.float32(255) - mean) / std, where, preprocess.size)


def _place(values: npt.NDArray[np.float32], where: Geometry, size: int) -> npt.NDArray[np.float32]:
    if where.top >= 0 and where.left >= 0:
        return np.ascontiguousarray(values[:, where.top : where.top + size, where.left : where.left + size])
    square = np.zeros((3, size, size), dtype=np.float32)
    top, left = -where.top, -where.left
    square[:, top : top + where.height, left : left + where.width] = values
    return square


def preprocess_uint8(image: ImageArray, preprocess: Preprocess) -> ImageArray:
    """Scale and place a picture in 8 bits: within 1.5 / 255 of the reference, some times faster, without the GIL.

    Args:
        image: (H, W, 3) uint8 RGB.
        preprocess: Size and fit rule; normalising is left to the device.

    Returns:
        (S, S, 3) uint8.
    """
    where = geometry(image.shape[0], image.shape[1], preprocess)
    size = preprocess.size
    if image.shape[:2] == (where.height, where.width):
        scaled = image
    else:
        picture = Image.fromarray(image).resize((where.width, where.height), Image.Resampling.BILINEAR)
        scaled = np.asarray(picture)
    if where.top >= 0 and where.left >= 0:
        return scaled[where.top : where.top + size, where.left : where.left + size]
    grey = np.rint(255 * np.asarray(preprocess.mean)).astype(np.uint8)
    square = np.empty((size, size, 3), dtype=np.uint8)
    square[:] = grey
    square[-where.top : -where.top + where.height, -where.left : -where.left + where.width] = scaled
    return square


def normalize(images: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Turn (N, S, S, 3) uint8 into (N, 3, S, S) float32, normalised, in channels-last memory, on its own device."""
    mean, std = (
        torch.tensor(v, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
        for v in (preprocess.mean, preprocess.std)
    )
    # One multiplication and one addition: x / 255 / std - mean / std.
    return images.permute(0, 3, 1, 2).float().mul_(1 / (255 * std)).sub_(mean / std)
