"""Operations that add noise: sensor, photons, colour, dead pixels."""

from __future__ import annotations

import random
from typing import ClassVar

import cv2
import numpy as np
from pydantic import Field

from autodl_ray.augment.op import Drawn, Family, Op, Target
from autodl_ray.augment.ops.chance import normal_strips, random_words, uniform
from autodl_ray.augment.ops.fields import Factors, Parts, Shares
from autodl_ray.images import ImageArray

__all__ = [
    "GaussianNoise",
    "ISONoise",
    "MultiplicativeNoise",
    "SaltAndPepper",
    "ShotNoise",
    "SpeckleNoise",
    "UniformNoise",
]


class GaussianNoise(Op):
    """Add noise to every value, as a sensor in the dark."""

    family: ClassVar[Family] = "noise"
    std: Shares = Field(
        (0.01, 0.05), description="standard deviation as a share of the full range, as [low, high] in (0, 1]"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (standard deviation, seed of the noise)."""
        return (rng.uniform(*self.std), rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Add and clip."""
        noisy = np.empty_like(image)
        for rows, noise in normal_strips(drawn[1], image.shape, std=drawn[0] * 255):
            noisy[rows] = cv2.add(image[rows], noise, dtype=cv2.CV_8U)
        return noisy


class UniformNoise(Op):
    """Add evenly spread noise to every value, as coarse rounding does."""

    family: ClassVar[Family] = "noise"
    reach: Shares = Field((0.02, 0.1), description="largest change as a share of the range, as [low, high] in (0, 1]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (largest change, seed of the noise)."""
        return (rng.uniform(*self.reach), rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Add and clip."""
        noise = uniform(drawn[1], image.shape, low=-drawn[0] * 255, high=drawn[0] * 255)
        return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), dtype=np.uint8)


class SpeckleNoise(Op):
    """Add noise in proportion to the value, as radar and ultrasound have it."""

    family: ClassVar[Family] = "noise"
    std: Shares = Field((0.05, 0.2), description="standard deviation as a share of the value, as [low, high] in (0, 1]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (standard deviation, seed of the noise)."""
        return (rng.uniform(*self.std), rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Multiply and clip."""
        noisy = np.empty_like(image)
        for rows, factors in normal_strips(drawn[1], image.shape, std=drawn[0], mean=1.0):
            noisy[rows] = cv2.multiply(image[rows], factors, dtype=cv2.CV_8U)
        return noisy


class MultiplicativeNoise(Op):
    """Multiply every value by a factor of its own, evenly spread."""

    family: ClassVar[Family] = "noise"
    factor: Factors = Field((0.9, 1.1), description="factor of each value, as [low, high] in [0, 10]")
    per_channel: bool = Field(True, description="true or false: whether red, green and blue get factors of their own")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (seed of the factors,)."""
        return (rng.getrandbits(32),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Multiply and clip."""
        low, high = self.factor
        if self.per_channel:
            factors = uniform(drawn[0], image.shape, low=low, high=high)
        else:
            factors = np.repeat(uniform(drawn[0], (*image.shape[:2], 1), low=low, high=high), 3, axis=2)
        return np.asarray(cv2.multiply(image, factors, dtype=cv2.CV_8U), dtype=np.uint8)


class ShotNoise(Op):
    """Add the noise of counting photons: its variance grows with the light (normal approximation of Poisson's law)."""

    family: ClassVar[Family] = "noise"
    strength: Shares = Field(
        (0.02, 0.1), description="standard deviation at white as a share of the range, as [low, high] in (0, 1]"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (standard deviation at white, seed of the noise)."""
        return (rng.uniform(*self.strength), rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Add noise in proportion to the root of the value."""
        roots = np.sqrt(np.arange(256, dtype=np.float32) / 255) * np.float32(drawn[0] * 255)
        noisy = np.empty_like(image)
        for rows, noise in normal_strips(drawn[1], image.shape, std=1.0):
            part = cv2.multiply(noise, cv2.LUT(image[rows], roots))
            noisy[rows] = cv2.add(image[rows], part, dtype=cv2.CV_8U)
        return noisy


class ISONoise(Op):
    """Add the grain of a camera at high ISO: noise of the lightness, and a weaker one of the colour."""

    family: ClassVar[Family] = "noise"
    lightness: Shares = Field((0.02, 0.06), description="deviation of the lightness, as [low, high] in (0, 1]")
    colour: Shares = Field((0.01, 0.03), description="deviation of each channel, as [low, high] in (0, 1]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (deviation of the lightness, of the channels, seed of each)."""
        deviations = (rng.uniform(*self.lightness), rng.uniform(*self.colour))
        return (*deviations, rng.getrandbits(32), rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Add both."""
        noisy = np.empty_like(image)
        light = np.empty(image.shape[:2], dtype=np.float32)
        for rows, grain in normal_strips(drawn[2], image.shape[:2], std=drawn[0] * 255):
            light[rows] = grain
        for rows, noise in normal_strips(drawn[3], image.shape, std=drawn[1] * 255):
            both = cv2.add(noise, cv2.merge([light[rows]] * 3))
            noisy[rows] = cv2.add(image[rows], both, dtype=cv2.CV_8U)
        return noisy


class SaltAndPepper(Op):
    """Make single pixels white or black, as a broken sensor."""

    family: ClassVar[Family] = "noise"
    share: Parts = Field((0.005, 0.03), description="share of the pixels, as [low, high] in [0, 1]")
    salt: float = Field(0.5, ge=0, le=1, description="0 to 1: share of them that is white")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (share, seed of the places)."""
        return (rng.uniform(*self.share), rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Replace the pixels."""
        words = random_words(drawn[1], image.shape[0] * image.shape[1]).reshape(image.shape[:2])
        chosen = round(drawn[0] * 65536)
        white = round(chosen * self.salt)
        broken = image.copy()
        broken[words < white] = 255
        broken[(words >= white) & (words < chosen)] = 0
        return broken
