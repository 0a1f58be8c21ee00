"""Colour operations in other spaces: tiles of the lightness, hue and value, a slope of light."""

from __future__ import annotations

import math
import random
from typing import ClassVar

import cv2
import numpy as np
from pydantic import Field

from autodl_ray.augment.op import Drawn, Family, Op, Target
from autodl_ray.augment.ops.fields import Parts, Positives
from autodl_ray.images import ImageArray

__all__ = ["CLAHE", "HueSaturationValue", "Illumination"]


class CLAHE(Op):
    """Equalize the lightness in small tiles, with limited contrast (Zuiderveld 1994)."""

    family: ClassVar[Family] = "colour"
    limit: Positives = Field((1.0, 4.0), description="limit of the contrast, as [low, high] in (0, 100]")
    tiles: int = Field(8, ge=1, le=32, description="1 to 32: tiles a side")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (limit,)."""
        return (rng.uniform(*self.limit),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Equalize L of L*a*b*."""
        tiles = (min(self.tiles, image.shape[1]), min(self.tiles, image.shape[0]))
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        lightness = cv2.createCLAHE(clipLimit=drawn[0], tileGridSize=tiles).apply(cv2.extractChannel(lab, 0))
        cv2.insertChannel(lightness, lab, 0)
        return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), dtype=np.uint8)


class HueSaturationValue(Op):
    """Shift hue, saturation and value, each by a random amount, in the HSV space."""

    family: ClassVar[Family] = "colour"
    hue: float = Field(0.05, ge=0, le=0.5, description="0 to 0.5: turn of the colour circle between -value and value")
    saturation: float = Field(0.1, ge=0, le=1, description="0 to 1: shift between -value and value of the full range")
    value: float = Field(0.1, ge=0, le=1, description="0 to 1: shift between -value and value of the full range")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (hue, saturation, value): a turn and two shares."""
        return tuple(rng.uniform(-most, most) for most in (self.hue, self.saturation, self.value))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """One table for the three."""
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
        values = np.arange(256)
        shifts = [round(share * 255) for share in drawn]
        table = np.stack([(values + shifts[0]) % 256, *(np.clip(values + s, 0, 255) for s in shifts[1:])], axis=1)
        hsv = cv2.LUT(hsv, table.astype(np.uint8).reshape(256, 1, 3))
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL), dtype=np.uint8)


class Illumination(Op):
    """Light the picture from one side: a slope of brightness across it."""

    family: ClassVar[Family] = "colour"
    strength: Parts = Field((0.05, 0.3), description="change at the two ends as a share, as [low, high] in [0, 1]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (strength, direction of the light in radians)."""
        return (rng.uniform(*self.strength), rng.uniform(0, 2 * math.pi))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Multiply by a plane."""
        height, width = image.shape[:2]
        x = np.linspace(-1, 1, width, dtype=np.float32) * math.cos(drawn[1])
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * math.sin(drawn[1])
        light = 1 + np.float32(drawn[0] / math.sqrt(2)) * (x + y).astype(np.float32)
        return np.asarray(cv2.multiply(image, cv2.merge([light] * 3), dtype=cv2.CV_8U), dtype=np.uint8)
