"""The reference of preprocessing in torch, which every exported graph has to match, and its fast 8-bit form."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from autodl_ray.images import Geometry, ImageArray, Preprocess, fit_geometry, fit_image

__all__ = ["normal_factors", "normalize", "normalize_by", "preprocess_tensor", "preprocess_uint8"]


def preprocess_tensor(image: ImageArray, preprocess: Preprocess) -> npt.NDArray[np.float32]:
    """Make the network's input from a decoded picture: the reference.

    Bilinear with antialiasing and half-pixel centres, in float32, without rounding between.

    Args:
        image: (H, W, 3) uint8 RGB.
        preprocess: Size, fit rule, mean and std.

    Returns:
        (3, S, S) float32, normalised; the margin of ``pad`` is 0, which is the mean.
    """
    where = fit_geometry(image.shape[0], image.shape[1], size=preprocess.size, fit=preprocess.fit)
    # [None] in torch and before the permutation: with other strides of the batch dimension torch 2.14 takes the
    # kernel for contiguous planes, which is wrong where the scaled width is 1 px.
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"]))[None].permute(0, 3, 1, 2).float()
    scaled = F.interpolate(
        pixels, size=(where.height, where.width), mode="bilinear", antialias=True, align_corners=False
    )
    values: npt.NDArray[np.float32] = scaled[0].numpy()
    mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (preprocess.mean, preprocess.std))
    return _place((values / np.float32(255) - mean) / std, where, preprocess.size)


def _place(values: npt.NDArray[np.float32], where: Geometry, size: int) -> npt.NDArray[np.float32]:
    if where.height >= size and where.width >= size:
        return np.ascontiguousarray(values[:, where.top : where.top + size, where.left : where.left + size])
    square = np.zeros((3, size, size), dtype=np.float32)
    top, left = -where.top, -where.left
    square[:, top : top + where.height, left : left + where.width] = values
    return square


def preprocess_uint8(image: ImageArray, preprocess: Preprocess) -> ImageArray:
    """Scale and place a picture in 8 bits: within 1.5 / 255 of the reference, and without the GIL.

    Args:
        image: (H, W, 3) uint8 RGB.
        preprocess: Size and fit rule; normalising is left to the device.

    Returns:
        (S, S, 3) uint8; the margin of ``pad`` is the mean.
    """
    red, green, blue = (round(255 * value) for value in preprocess.mean)
    return fit_image(image, size=preprocess.size, fit=preprocess.fit, fill=(red, green, blue))


def normalize(images: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Turn (N, S, S, 3) uint8 into (N, 3, S, S) float32, normalised, in channels-last memory, on its own device."""
    return normalize_by(images, normal_factors(preprocess, images.device))


def normal_factors(preprocess: Preprocess, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what :func:`normalize_by` takes for many batches: two tensors (1, 3, 1, 1) float32."""
    # One multiplication and one subtraction, x / (255 std) - mean / std.
    factors = [1 / (255 * std) for std in preprocess.std]
    shifts = [mean / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)]
    scale, shift = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (factors, shifts))
    return scale, shift


def normalize_by(images: torch.Tensor, factors: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Do what :func:`normalize` does, with factors that were worked out before."""
    scale, shift = factors
    return images.permute(0, 3, 1, 2).float().mul_(scale).sub_(shift)
