"""Operations that change how a picture looks but not where things are: colour, blur, noise, erasing, compression."""

from __future__ import annotations

import math
import random
from typing import Annotated, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from autodl_ray.augment.geometry import Positive, Share, _ordered
from autodl_ray.augment.op import Drawn, Family, Op, Target
from autodl_ray.images import ImageArray

__all__ = ["ColorJitter", "GaussianBlur", "GaussianNoise", "Grayscale", "JpegCompression", "RandomErasing"]

_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


class ColorJitter(Op):
    """Change brightness, contrast, saturation and hue, each by a random factor.

    All four are linear in the pixel, so they are one 3 × 4 matrix, applied once; hue turns the plane of I and Q.
    """

    family: ClassVar[Family] = "colour"
    brightness: float = Field(0.0, ge=0, le=1, description="0 to 1: factor from 1 - value to 1 + value")
    contrast: float = Field(0.0, ge=0, le=1, description="0 to 1: factor from 1 - value to 1 + value")
    saturation: float = Field(0.0, ge=0, le=1, description="0 to 1: factor from 1 - value to 1 + value")
    hue: float = Field(0.0, ge=0, le=0.5, description="0 to 0.5: turn of the colour circle, 0.5 is its other side")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (brightness, contrast, saturation, hue): three factors and a turn."""
        factors = [rng.uniform(1 - value, 1 + value) for value in (self.brightness, self.contrast, self.saturation)]
        return (*factors, rng.uniform(-self.hue, self.hue))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Multiply every pixel by the matrix."""
        brightness, contrast, saturation, hue = drawn
        matrix = np.empty((3, 4), dtype=np.float64)
        matrix[:, :3] = (1 - saturation) * _LUMA
        matrix[:, :3] += saturation * np.eye(3)
        if hue:
            matrix[:, :3] = _hue_matrix(hue) @ matrix[:, :3]
        matrix[:, :3] *= brightness * contrast
        # Contrast pulls towards the mean grey of the brightened picture; grey stays grey under the other two.
        mean = sum(float(m) * luma for m, luma in zip(cv2.mean(image), _LUMA, strict=False)) if contrast != 1 else 0.0
        matrix[:, 3] = (1 - contrast) * brightness * mean
        return np.asarray(cv2.transform(image, matrix.astype(np.float32)), dtype=np.uint8)


def _hue_matrix(turn: float) -> npt.NDArray[np.float64]:
    angle = 2 * math.pi * turn
    rotation = np.array(
        [[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]], dtype=np.float64
    )
    return np.asarray(np.linalg.inv(_TO_YIQ) @ rotation @ _TO_YIQ, dtype=np.float64)


class Grayscale(Op):
    """Take the colour away; three equal channels stay."""

    family: ClassVar[Family] = "colour"

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Nothing is to choose: the policy's probability says whether."""
        return ()

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Keep the luminance."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), dtype=np.uint8)


class GaussianBlur(Op):
    """Blur, as a lens out of focus."""

    family: ClassVar[Family] = "blur"
    sigma: Annotated[tuple[Positive, Positive], AfterValidator(_ordered)] = Field(
        (0.1, 2.0), description="standard deviation in pixels, as [low, high] above 0"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (sigma,), in pixels."""
        return (rng.uniform(*self.sigma),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Blur."""
        return np.asarray(cv2.GaussianBlur(image, (0, 0), drawn[0]), dtype=np.uint8)


class GaussianNoise(Op):
    """Add noise to every value, as a sensor in the dark."""

    family: ClassVar[Family] = "noise"
    std: Annotated[tuple[Share, Share], AfterValidator(_ordered)] = Field(
        (0.01, 0.05), description="standard deviation as a share of the full range, as [low, high] in (0, 1]"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (standard deviation, seed of the noise)."""
        return (rng.uniform(*self.std), rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Add and clip."""
        noise = np.random.default_rng(int(drawn[1])).standard_normal(image.shape, dtype=np.float32)
        noise *= np.float32(drawn[0] * 255)
        noise += image
        return np.clip(noise, 0, 255, out=noise).round().astype(np.uint8)


class RandomErasing(Op):
    """Cover rectangles with the fill colour (Zhong et al. 2017; also known as coarse dropout)."""

    family: ClassVar[Family] = "dropout"
    holes: int = Field(1, ge=1, le=64, description="rectangles, 1 to 64")
    scale: Annotated[tuple[Share, Share], AfterValidator(_ordered)] = Field(
        (0.02, 0.2), description="share of the area of each, as [low, high] in (0, 1]"
    )
    ratio: Annotated[tuple[Positive, Positive], AfterValidator(_ordered)] = Field(
        (0.3, 3.3), description="width / height of each, as [low, high] above 0"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (top, left, height, width) of each rectangle, one after the other, in pixels."""
        drawn: list[float] = []
        for _ in range(self.holes):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            h = min(height, max(1, round(math.sqrt(area / ratio))))
            w = min(width, max(1, round(math.sqrt(area * ratio))))
            drawn += [rng.randint(0, height - h), rng.randint(0, width - w), h, w]
        return tuple(drawn)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Cover."""
        covered = image.copy()
        for start in range(0, len(drawn), 4):
            top, left, height, width = (int(value) for value in drawn[start : start + 4])
            covered[top : top + height, left : left + width] = target.fill
        return covered


class JpegCompression(Op):
    """Save as a JPEG of low quality and read it again."""

    family: ClassVar[Family] = "quality"
    quality: Annotated[tuple[int, int], AfterValidator(_ordered)] = Field(
        (40, 90), description="JPEG quality, as [low, high] of 1 to 100"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (quality,)."""
        return (rng.randint(*self.quality),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Encode and decode."""
        quality = min(100, max(1, int(drawn[0])))
        _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)
