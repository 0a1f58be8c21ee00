"""Operations that change the quality: sharper, coarser, compressed, embossed."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from autodl_ray.augment.op import Drawn, Family, Op, Target
from autodl_ray.augment.ops.blur import filtered, gaussian
from autodl_ray.augment.ops.fields import Counts, Factors, Parts, Positives, Qualities, Shares
from autodl_ray.images import ImageArray

__all__ = [
    "ChromaticAberration",
    "Downscale",
    "Emboss",
    "JpegCompression",
    "Morphological",
    "RingingOvershoot",
    "Sharpen",
    "Sharpness",
    "UnsharpMask",
    "WebPCompression",
]

_ONE = np.zeros((3, 3), dtype=np.float32)
_ONE[1, 1] = 1
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13


class Sharpness(Op):
    """Make the picture sharper (factor above 1) or softer, as Pillow's enhancer does."""

    family: ClassVar[Family] = "quality"
    factor: Factors = Field((0.3, 1.7), description="factor of the fine detail, as [low, high] in [0, 10]; 0 is smooth")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (factor,)."""
        return (rng.uniform(*self.factor),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Mix with a smoothed picture: one kernel for both."""
        factor = np.float32(drawn[0])
        return filtered(image, np.asarray(factor * _ONE + (1 - factor) * _SMOOTH, dtype=np.float32))


class Compressed(Op):
    """An operation that saves the picture with loss and reads it again."""

    family: ClassVar[Family] = "quality"

    @abstractmethod
    def format(self) -> tuple[str, int, int]:
        """Return the suffix of the format, OpenCV's name of its quality, and its longest side in pixels."""

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Encode and decode; a picture that is too long for the format stays as it is."""
        suffix, option, longest = self.format()
        if max(image.shape[:2]) > longest:
            return image
        quality = min(100, max(1, int(drawn[0])))
        _, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [option, quality])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)


class JpegCompression(Compressed):
    """Save as a JPEG of low quality and read it again."""

    quality: Qualities = Field((40, 90), description="JPEG quality, as [low, high] of 1 to 100")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (quality,)."""
        return (rng.randint(*self.quality),)

    def format(self) -> tuple[str, int, int]:
        """JPEG."""
        return ".jpg", cv2.IMWRITE_JPEG_QUALITY, 65_500


class WebPCompression(Compressed):
    """Save as a WebP of low quality and read it again."""

    quality: Qualities = Field((30, 90), description="WebP quality, as [low, high] of 1 to 100")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (quality,)."""
        return (rng.randint(*self.quality),)

    def format(self) -> tuple[str, int, int]:
        """WebP."""
        return ".webp", cv2.IMWRITE_WEBP_QUALITY, 16_383


class Downscale(Op):
    """Make the picture smaller and large again: fine detail is lost."""

    family: ClassVar[Family] = "quality"
    scale: Shares = Field((0.3, 0.7), description="share of each side in between, as [low, high] in (0, 1]")
    blocks: bool = Field(False, description="true or false: whether pixels show as blocks")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (share,)."""
        return (rng.uniform(*self.scale),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Down by averaging, up by bilinear interpolation or blocks."""
        height, width = image.shape[:2]
        small = (max(1, round(width * drawn[0])), max(1, round(height * drawn[0])))
        up = cv2.INTER_NEAREST if self.blocks else cv2.INTER_LINEAR
        part = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(part, (width, height), interpolation=up), dtype=np.uint8)


class Sharpen(Op):
    """Mix the picture with its edges (a Laplacian of the eight neighbours)."""

    family: ClassVar[Family] = "quality"
    strength: Parts = Field((0.2, 0.5), description="share of the sharpened picture, as [low, high] in [0, 1]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (share,)."""
        return (rng.uniform(*self.strength),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """One kernel for both."""
        edges = -np.ones((3, 3), dtype=np.float32)
        edges[1, 1] = 9
        share = np.float32(drawn[0])
        return filtered(image, share * edges + (1 - share) * _ONE)


class Emboss(Op):
    """Make edges stand out as a relief."""

    family: ClassVar[Family] = "quality"
    alpha: Parts = Field((0.2, 0.5), description="share of the relief, as [low, high] in [0, 1]")
    strength: Factors = Field((0.2, 0.7), description="height of the relief, as [low, high] in [0, 10]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (share, height)."""
        return (rng.uniform(*self.alpha), rng.uniform(*self.strength))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """One kernel for both."""
        alpha, strength = np.float32(drawn[0]), np.float32(drawn[1])
        slope = np.array([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]], dtype=np.float32)
        return filtered(image, _ONE + alpha * strength * slope)


class UnsharpMask(Op):
    """Add the difference from a blurred picture: sharper at the scale of the blur."""

    family: ClassVar[Family] = "quality"
    sigma: Positives = Field((0.5, 2.0), description="blur in pixels, as [low, high] in (0, 100]")
    amount: Factors = Field((0.3, 1.0), description="factor of the difference, as [low, high] in [0, 10]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (sigma in pixels, factor)."""
        return (rng.uniform(*self.sigma), rng.uniform(*self.amount))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Blur and add."""
        blurred = gaussian(image, drawn[0])
        return np.asarray(cv2.addWeighted(image, 1 + drawn[1], blurred, -drawn[1], 0), dtype=np.uint8)


class RingingOvershoot(Op):
    """Let edges ring: cut off the high frequencies sharply (Wang et al. 2021, Real-ESRGAN)."""

    family: ClassVar[Family] = "quality"
    radius: Counts = Field((2, 5), description="radius of the kernel in pixels, as [low, high] of 1 to 64")
    cutoff: Shares = Field((0.25, 0.5), description="frequency of the cut, 1 is the highest, as [low, high] in (0, 1]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (radius in pixels, frequency)."""
        return (rng.randint(*self.radius), rng.uniform(*self.cutoff))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Filter with the impulse response of a round low-pass, a Bessel function."""
        from scipy.special import j1

        radius, cutoff = int(drawn[0]), math.pi * drawn[1]
        line = np.arange(-radius, radius + 1)
        distance = np.sqrt(line**2 + line[:, None] ** 2)
        distance[radius, radius] = 1e-6  # the limit in the middle
        kernel = cutoff * j1(cutoff * distance) / (2 * math.pi * distance)
        return filtered(image, (kernel / kernel.sum()).astype(np.float32))


class ChromaticAberration(Op):
    """Scale red and blue a little against green, as a cheap lens: coloured edges away from the middle."""

    family: ClassVar[Family] = "quality"
    most: float = Field(0.01, ge=0, le=0.1, description="0 to 0.1: red and blue larger or smaller by up to this share")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (change of red, change of blue), as shares."""
        return (rng.uniform(-self.most, self.most), rng.uniform(-self.most, self.most))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Zoom two of the channels."""
        height, width = image.shape[:2]
        changed = image.copy()
        for channel, share in zip((0, 2), drawn, strict=True):
            matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 0, 1 + share)
            plane = cv2.extractChannel(image, channel)
            cv2.insertChannel(
                cv2.warpAffine(plane, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), changed, channel
            )
        return changed


class Morphological(Op):
    """Make bright parts thicker (dilation) or thinner (erosion)."""

    family: ClassVar[Family] = "quality"
    radius: Counts = Field((1, 2), description="pixels on each side, as [low, high] of 1 to 64")
    kind: Literal["any", "dilate", "erode"] = Field("any", description="dilate, erode, or any (one of them)")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (radius in pixels, 1 for thicker or 0 for thinner)."""
        thicker = rng.getrandbits(1) if self.kind == "any" else int(self.kind == "dilate")
        return (rng.randint(*self.radius), thicker)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Take the highest or lowest value of a square."""
        side = 2 * int(drawn[0]) + 1
        change: Any = cv2.dilate if drawn[1] else cv2.erode
        return np.asarray(change(image, np.ones((side, side), dtype=np.uint8)), dtype=np.uint8)
