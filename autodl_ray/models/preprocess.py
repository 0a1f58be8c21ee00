"""The reference of the preprocessing in torch, which the exported graph must match."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autodl_ray.images import ImageArray, Preprocess

if TYPE_CHECKING:
    import torch

__all__ = ["centre_square", "padded_box", "preprocess_tensor"]


def centre_square(height: int, width: int) -> tuple[int, int, int]:
    """Return (top, left, side) in px of the centre square that ``crop`` keeps."""
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side


def padded_box(height: int, width: int, size: int) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) in px of the scaled picture inside the ``size`` × ``size`` square of ``pad``.

    Sides are rounded half up in whole numbers, so that every implementation agrees.
    """
    longer = max(height, width)
    new_height = max(1, (2 * height * size + longer) // (2 * longer))
    new_width = max(1, (2 * width * size + longer) // (2 * longer))
    return (size - new_height) // 2, (size - new_width) // 2, new_height, new_width


def preprocess_tensor(image: ImageArray, preprocess: Preprocess) -> torch.Tensor:
    """Turn a decoded picture into the input of a network.

    ``crop`` cuts the centre square before it scales: the same picture as scaling the shorter side first, without
    the cost for very long ones. ``pad`` fills with the mean, which is 0 after normalisation.

    Args:
        image: (H, W, 3) uint8, RGB, any size from 1 × 1 px.
        preprocess: The rule.

    Returns:
        (3, S, S) float32, normalised.
    """
    import torch
    import torch.nn.functional as F

    size = preprocess.size
    if preprocess.fit == "crop":
        top, left, side = centre_square(*image.shape[:2])
        image = image[top : top + side, left : left + side]
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    top, left, height, width = (0, 0, size, size)
    if preprocess.fit == "pad":
        top, left, height, width = padded_box(*image.shape[:2], size)
    scaled = F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True, align_corners=False)[0]
    mean = torch.tensor(preprocess.mean).view(3, 1, 1)
    std = torch.tensor(preprocess.std).view(3, 1, 1)
    normalised = (scaled / 255.0 - mean) / std
    return F.pad(normalised, (left, size - width - left, top, size - height - top))
