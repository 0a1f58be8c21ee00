"""Colour operations that are linear in the pixel: one 3 × 4 matrix, applied once."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from autodl_ray.augment.op import Drawn, Family, Op, Target
from autodl_ray.augment.ops.fields import Factors, Parts
from autodl_ray.images import ImageArray

__all__ = [
    "LUMA",
    "ChannelDropout",
    "ChannelShuffle",
    "ColorJitter",
    "Grayscale",
    "Hue",
    "Linear",
    "Matrix",
    "RGBShift",
    "Saturation",
    "ToSepia",
    "mean_grey",
    "scaled",
    "shifted",
]

Matrix = npt.NDArray[np.float64]

LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_TO_RGB = np.linalg.inv(_TO_YIQ)
_SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
_ORDERS = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


class Linear(Op):
    """An operation that multiplies every pixel by one matrix."""

    family: ClassVar[Family] = "colour"

    @abstractmethod
    def matrix(self, image: ImageArray, drawn: Drawn) -> Matrix:
        """Return (3, 4) float64: red, green, blue and 1, of 0 to 255, to the new red, green and blue."""

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Multiply, round and clip."""
        return np.asarray(cv2.transform(image, self.matrix(image, drawn).astype(np.float32)), dtype=np.uint8)


def scaled(red: float, green: float, blue: float) -> Matrix:
    """Return the (3, 4) matrix that multiplies each channel by its factor."""
    return np.diag([red, green, blue]) @ np.eye(3, 4)


def shifted(red: float, green: float, blue: float) -> Matrix:
    """Return the (3, 4) matrix that adds a value, of 255, to each channel."""
    matrix = np.eye(3, 4)
    matrix[:, 3] = red, green, blue
    return matrix


def mean_grey(image: ImageArray) -> float:
    """Return the mean luminance, 0 to 255."""
    red, green, blue, _ = cv2.mean(image)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _hue_matrix(turn: float) -> Matrix:
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    return np.asarray(_TO_RGB @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _TO_YIQ)


class ColorJitter(Linear):
    """Change brightness, contrast, saturation and hue, each by a random factor.

    All four are linear in the pixel, so they are one 3 × 4 matrix, applied once; hue turns the plane of I and Q.
    """

    brightness: float = Field(0.0, ge=0, le=1, description="0 to 1: factor from 1 - value to 1 + value")
    contrast: float = Field(0.0, ge=0, le=1, description="0 to 1: factor from 1 - value to 1 + value")
    saturation: float = Field(0.0, ge=0, le=1, description="0 to 1: factor from 1 - value to 1 + value")
    hue: float = Field(0.0, ge=0, le=0.5, description="0 to 0.5: turn of the colour circle, 0.5 is its other side")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (brightness, contrast, saturation, hue): three factors and a turn."""
        factors = [rng.uniform(1 - value, 1 + value) for value in (self.brightness, self.contrast, self.saturation)]
        return (*factors, rng.uniform(-self.hue, self.hue))

    def matrix(self, image: ImageArray, drawn: Drawn) -> Matrix:
        """The four, one after the other."""
        brightness, contrast, saturation, hue = drawn
        factor = brightness * contrast
        # Contrast pulls towards the mean grey of the brightened picture; grey stays grey under the other two. Some 64
        # rows tell that mean: all of them would cost a tenth of a crop, flip and jitter.
        rows = image[:: 1 + image.shape[0] // 64]
        shift = (1 - contrast) * brightness * mean_grey(rows) if contrast != 1 else 0.0
        red, green, blue = (factor * (1 - saturation) * luma for luma in (0.299, 0.587, 0.114))
        own = factor * saturation
        matrix = np.array(
            [[red + own, green, blue, shift], [red, green + own, blue, shift], [red, green, blue + own, shift]]
        )
        if hue:
            matrix[:, :3] = _hue_matrix(hue) @ matrix[:, :3]
        return matrix


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


class Saturation(Linear):
    """Make the colours stronger (factor above 1) or paler."""

    factor: Factors = Field((0.5, 1.5), description="factor of the colour, as [low, high] in [0, 10]; 0 is grey")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (factor,)."""
        return (rng.uniform(*self.factor),)

    def matrix(self, image: ImageArray, drawn: Drawn) -> Matrix:
        """Mix with the grey of each pixel."""
        return scaled(drawn[0], drawn[0], drawn[0]) + (1 - drawn[0]) * np.append(LUMA, 0)


class Hue(Linear):
    """Turn all colours along the colour circle; grey stays grey."""

    turn: float = Field(
        0.05, ge=0, le=0.5, description="0 to 0.5: turn between -value and value, 0.5 is the other side"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (turn,), as a share of the circle."""
        return (rng.uniform(-self.turn, self.turn),)

    def matrix(self, image: ImageArray, drawn: Drawn) -> Matrix:
        """Turn the plane of I and Q."""
        return np.append(_hue_matrix(drawn[0]), np.zeros((3, 1)), axis=1)


class ChannelShuffle(Linear):
    """Exchange red, green and blue."""

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (channel that becomes red, that becomes green, that becomes blue)."""
        return rng.choice(_ORDERS)

    def matrix(self, image: ImageArray, drawn: Drawn) -> Matrix:
        """A permutation."""
        return np.eye(3, 4)[[int(channel) for channel in drawn]]


class ChannelDropout(Linear):
    """Take one of red, green and blue away."""

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (channel,): 0, 1 or 2."""
        return (rng.randrange(3),)

    def matrix(self, image: ImageArray, drawn: Drawn) -> Matrix:
        """Zero for that channel."""
        matrix = np.eye(3, 4)
        matrix[int(drawn[0])] = 0
        return matrix


class RGBShift(Linear):
    """Add a random amount to each of red, green and blue."""

    most: float = Field(20.0, ge=0, le=255, description="0 to 255: amount between -value and value")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (red, green, blue)."""
        return tuple(rng.uniform(-self.most, self.most) for _ in range(3))

    def matrix(self, image: ImageArray, drawn: Drawn) -> Matrix:
        """Shift."""
        return shifted(*drawn)


class ToSepia(Linear):
    """Tint as an old photograph is."""

    strength: Parts = Field((0.5, 1.0), description="share of the tint, as [low, high] in [0, 1]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (share,)."""
        return (rng.uniform(*self.strength),)

    def matrix(self, image: ImageArray, drawn: Drawn) -> Matrix:
        """Mix with the sepia matrix."""
        mixed = drawn[0] * _SEPIA + (1 - drawn[0]) * np.eye(3)
        return np.append(mixed, np.zeros((3, 1)), axis=1)
