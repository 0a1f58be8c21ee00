"""Operations that move pixels: crop, shift, flip, rotate."""

from __future__ import annotations

import math
import random
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
from pydantic import AfterValidator, Field

from autodl_ray.augment.op import Drawn, Family, Op, Target
from autodl_ray.images import ImageArray

__all__ = ["HorizontalFlip", "RandomResizedCrop", "RandomRotate", "RandomShift", "VerticalFlip"]


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("low must not be above high")
    return value


Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=100)]
Angle = Annotated[float, Field(ge=-360, le=360)]


class RandomResizedCrop(Op):
    """Cut a random part, and scale it to the network's input (Szegedy et al. 2014)."""

    family: ClassVar[Family] = "geometry"
    moves_pixels: ClassVar[bool] = True
    scale: Annotated[tuple[Share, Share], AfterValidator(_ordered)] = Field(
        (0.5, 1.0), description="share of the area, as [low, high] in (0, 1]"
    )
    ratio: Annotated[tuple[Positive, Positive], AfterValidator(_ordered)] = Field(
        (0.75, 4 / 3), description="width / height of the part, as [low, high] above 0"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (top, left, height, width) of the part, in pixels."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return (rng.randint(0, height - h), rng.randint(0, width - w), h, w)
        # No such part lies within (a very long picture): the middle, with the nearest ratio that does.
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        return ((height - h) // 2, (width - w) // 2, h, w)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Cut and scale; averaging where the part is much larger than the input, else bilinear."""
        top, left, height, width = (int(value) for value in drawn)
        part = image[top : top + height, left : left + width]
        shrinks = max(height, width) > 1.5 * target.size
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(part, (target.size, target.size), interpolation=how), dtype=np.uint8)


class RandomShift(Op):
    """Pad with the edge's pixels and cut the old size elsewhere: for tiny pictures, where a crop loses too much."""

    family: ClassVar[Family] = "geometry"
    moves_pixels: ClassVar[bool] = True
    fraction: float = Field(0.125, ge=0, le=1, description="largest shift as a share of the side, 0 to 1")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (down, right), in pixels."""
        most_y, most_x = round(height * self.fraction), round(width * self.fraction)
        return (rng.randint(-most_y, most_y), rng.randint(-most_x, most_x))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Shift by whole pixels."""
        down, right = int(drawn[0]), int(drawn[1])
        height, width = image.shape[:2]
        padded = cv2.copyMakeBorder(
            image, max(down, 0), max(-down, 0), max(right, 0), max(-right, 0), cv2.BORDER_REPLICATE
        )
        top, left = max(-down, 0), max(-right, 0)
        return np.asarray(padded, dtype=np.uint8)[top : top + height, left : left + width]


class HorizontalFlip(Op):
    """Mirror left and right."""

    family: ClassVar[Family] = "geometry"
    moves_pixels: ClassVar[bool] = True

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Nothing is to choose: the policy's probability says whether."""
        return ()

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Mirror."""
        return np.asarray(cv2.flip(image, 1), dtype=np.uint8)


class VerticalFlip(Op):
    """Mirror top and bottom."""

    family: ClassVar[Family] = "geometry"
    moves_pixels: ClassVar[bool] = True

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Nothing is to choose: the policy's probability says whether."""
        return ()

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Mirror."""
        return np.asarray(cv2.flip(image, 0), dtype=np.uint8)


class RandomRotate(Op):
    """Turn the picture counter-clockwise.

    Quarter turns are exact and exchange the sides of a picture that is not square; other angles keep the sides, and
    the corners come from ``border``.
    """

    family: ClassVar[Family] = "geometry"
    moves_pixels: ClassVar[bool] = True
    degrees: Annotated[float, Field(ge=0, le=180)] | Annotated[tuple[Angle, ...], Field(min_length=1)] = Field(
        15.0, description="a number 0 to 180 (an angle between -number and number), or a list (one of these angles)"
    )
    border: Literal["edge", "fill"] = Field(
        "edge", description="edge (corners repeat the edge's pixels) or fill (the mean colour)"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (angle,), in degrees."""
        if isinstance(self.degrees, tuple):
            return (rng.choice(self.degrees),)
        return (rng.uniform(-self.degrees, self.degrees),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Turn around the centre."""
        angle = drawn[0] % 360
        if angle % 90 == 0:
            return np.ascontiguousarray(np.rot90(image, int(angle // 90)))
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        turned = cv2.warpAffine(
            image,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE if self.border == "edge" else cv2.BORDER_CONSTANT,
            borderValue=target.fill,
        )
        return np.asarray(turned, dtype=np.uint8)
