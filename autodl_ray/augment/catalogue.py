"""The explicit table of augmentations, by the names that a policy uses."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from autodl_ray.augment import appearance, geometry
from autodl_ray.augment.op import Op

__all__ = ["CATALOGUE"]

CATALOGUE: Mapping[str, type[Op]] = MappingProxyType(
    {
        "ColorJitter": appearance.ColorJitter,
        "GaussianBlur": appearance.GaussianBlur,
        "GaussianNoise": appearance.GaussianNoise,
        "Grayscale": appearance.Grayscale,
        "HorizontalFlip": geometry.HorizontalFlip,
        "JpegCompression": appearance.JpegCompression,
        "RandomErasing": appearance.RandomErasing,
        "RandomResizedCrop": geometry.RandomResizedCrop,
        "RandomRotate": geometry.RandomRotate,
        "RandomShift": geometry.RandomShift,
        "VerticalFlip": geometry.VerticalFlip,
    }
)
