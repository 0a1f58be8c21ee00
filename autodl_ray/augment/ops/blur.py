"""Operations that blur: lens, motion, glass."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from typing import Annotated, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from autodl_ray.augment.op import Drawn, Family, Op, Target
from autodl_ray.augment.ops.chance import uniform
from autodl_ray.augment.ops.fields import MAX_REMAPPED, Counts, Positives, ordered
from autodl_ray.images import ImageArray

__all__ = [
    "AdvancedBlur",
    "BoxBlur",
    "Defocus",
    "GaussianBlur",
    "GlassBlur",
    "Kernel",
    "MedianBlur",
    "MotionBlur",
    "ZoomBlur",
    "filtered",
    "gaussian",
]

_Width = Annotated[float, Field(ge=0.1, le=20)]
_Power = Annotated[float, Field(ge=0.1, le=10)]
_Zoom = Annotated[float, Field(ge=1, le=4)]
Kernel = npt.NDArray[np.float32]


def filtered(image: ImageArray, kernel: Kernel) -> ImageArray:
    """Return (H, W, 3) uint8: the picture filtered with an odd (K, K) kernel, its edges mirrored."""
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101), dtype=np.uint8)


def gaussian(image: ImageArray, sigma: float) -> ImageArray:
    """Return (H, W, 3) uint8: the picture blurred with a normal bell, cut at three standard deviations.

    In floating point, which costs half of OpenCV's bit-exact ``GaussianBlur``.
    """
    bell = cv2.getGaussianKernel(2 * max(1, round(3 * sigma)) + 1, sigma, cv2.CV_32F)
    return np.asarray(cv2.sepFilter2D(image, -1, bell, bell), dtype=np.uint8)


class GaussianBlur(Op):
    """Blur, as a lens out of focus."""

    family: ClassVar[Family] = "blur"
    sigma: Positives = Field((0.1, 2.0), description="standard deviation in pixels, as [low, high] in (0, 100]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (sigma,), in pixels."""
        return (rng.uniform(*self.sigma),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Blur."""
        return gaussian(image, drawn[0])


class BoxBlur(Op):
    """Replace each pixel by the mean of a square around it."""

    family: ClassVar[Family] = "blur"
    radius: Counts = Field((1, 3), description="pixels on each side, as [low, high] of 1 to 64")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (radius,), in pixels."""
        return (rng.randint(*self.radius),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Average."""
        side = 2 * int(drawn[0]) + 1
        return np.asarray(cv2.blur(image, (side, side)), dtype=np.uint8)


class MedianBlur(Op):
    """Replace each pixel by the median of a square around it: edges stay, grain goes."""

    family: ClassVar[Family] = "blur"
    radius: Counts = Field((1, 2), description="pixels on each side, as [low, high] of 1 to 64")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (radius,), in pixels."""
        return (rng.randint(*self.radius),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Take the median of each channel."""
        return np.asarray(cv2.medianBlur(image, 2 * int(drawn[0]) + 1), dtype=np.uint8)


class Kernelled(Op):
    """An operation that filters with a kernel of its own."""

    family: ClassVar[Family] = "blur"

    @abstractmethod
    def kernel(self, drawn: Drawn) -> Kernel:
        """Return an odd (K, K) float32 kernel; its sum does not matter."""

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Filter with the kernel, so that the brightness stays."""
        kernel = self.kernel(drawn)
        return filtered(image, kernel / kernel.sum())


def _grid(radius: int) -> tuple[Kernel, Kernel]:
    line = np.arange(-radius, radius + 1, dtype=np.float32)
    return line, line[:, None]


class MotionBlur(Kernelled):
    """Blur along a line, as a camera that moves."""

    length: Counts = Field((3, 9), description="length of the way in pixels, as [low, high] of 1 to 64")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (length in pixels, direction in radians)."""
        return (rng.randint(*self.length), rng.uniform(0, math.pi))

    def kernel(self, drawn: Drawn) -> Kernel:
        """A line of one pixel's width, with soft edges."""
        length, angle = drawn
        x, y = _grid(int(length) // 2)
        along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        end = np.clip(length / 2 + 0.5 - np.abs(along), 0, 1)
        return np.asarray(end * np.clip(1 - np.abs(across), 0, 1), dtype=np.float32)


class Defocus(Kernelled):
    """Blur to discs, as a lens that is set to another distance."""

    radius: Positives = Field((1.0, 4.0), description="radius of the disc in pixels, as [low, high] in (0, 100]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (radius,), in pixels."""
        return (rng.uniform(*self.radius),)

    def kernel(self, drawn: Drawn) -> Kernel:
        """A disc with a soft edge."""
        x, y = _grid(math.ceil(drawn[0]))
        return np.asarray(np.clip(drawn[0] + 0.5 - np.sqrt(x**2 + y**2), 0, 1), dtype=np.float32)


class AdvancedBlur(Kernelled):
    """Blur with a turned, unround bell of random shape and a grainy kernel (Wang et al. 2021, Real-ESRGAN)."""

    sigma: Annotated[tuple[_Width, _Width], AfterValidator(ordered)] = Field(
        (0.3, 1.5), description="width of each axis in pixels, as [low, high] in [0.1, 20]"
    )
    power: Annotated[tuple[_Power, _Power], AfterValidator(ordered)] = Field(
        (0.5, 4.0), description="shape, as [low, high] in [0.1, 10]: 1 is a normal bell, above 1 flatter"
    )
    grain: float = Field(0.1, ge=0, le=0.9, description="0 to 0.9: random change of each weight of the kernel")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (first width, second width, direction in radians, shape, seed of the grain)."""
        widths = (rng.uniform(*self.sigma), rng.uniform(*self.sigma))
        return (*widths, rng.uniform(0, math.pi), rng.uniform(*self.power), rng.getrandbits(32))

    def kernel(self, drawn: Drawn) -> Kernel:
        """A generalised normal density, each weight changed a little."""
        first, second, angle, power, seed = drawn
        x, y = _grid(max(1, math.ceil(2 * max(first, second))))
        u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        far = np.minimum((u / first) ** 2 + (v / second) ** 2, 1e3)
        bell = np.exp(-0.5 * far**power)
        grain = np.random.default_rng(int(seed)).uniform(1 - self.grain, 1 + self.grain, bell.shape)
        return np.asarray(np.where(bell > 1e-6, bell * grain, 0), dtype=np.float32)  # denormal weights cost 50 times


class ZoomBlur(Op):
    """Blur outwards from the middle, as a lens that zooms during the exposure."""

    family: ClassVar[Family] = "blur"
    factor: Annotated[tuple[_Zoom, _Zoom], AfterValidator(ordered)] = Field(
        (1.02, 1.15), description="zoom at the end, as [low, high] in [1, 4]; 1 is none"
    )
    steps: int = Field(8, ge=2, le=32, description="2 to 32: pictures that are averaged")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (factor,)."""
        return (rng.uniform(*self.factor),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Average pictures of growing zoom."""
        height, width = image.shape[:2]
        total = image.astype(np.float32)
        for zoom in np.linspace(1, drawn[0], self.steps)[1:]:
            h, w = max(1, round(height / zoom)), max(1, round(width / zoom))
            top, left = (height - h) // 2, (width - w) // 2
            zoomed = cv2.resize(image[top : top + h, left : left + w], (width, height))
            total = np.asarray(cv2.accumulate(zoomed, total))
        return np.asarray(cv2.convertScaleAbs(total, alpha=1 / self.steps), dtype=np.uint8)


class GlassBlur(Op):
    """See the picture through frosted glass: each pixel comes from a place near by (Hendrycks & Dietterich 2019)."""

    family: ClassVar[Family] = "blur"
    reach: Counts = Field((1, 3), description="how far away, in pixels, as [low, high] of 1 to 64")
    sigma: float = Field(0.7, gt=0, le=10, description="above 0 to 10: blur after it, in pixels")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (reach in pixels, seed of the places)."""
        return (rng.randint(*self.reach), rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Take pixels from near by, then blur a little; a picture that is too long is only blurred."""
        height, width = image.shape[:2]
        if max(height, width) > MAX_REMAPPED:
            return gaussian(image, self.sigma)
        reach = drawn[0] + 0.49
        away = uniform(drawn[1], (2, height, width), low=-reach, high=reach)
        x = away[0] + np.arange(width, dtype=np.float32)
        y = away[1] + np.arange(height, dtype=np.float32)[:, None]
        taken = cv2.remap(image, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        return gaussian(np.asarray(taken, dtype=np.uint8), self.sigma)
