"""Operations of weather and light: rain, snow, fog, sun, shadow, drops on the lens."""

from __future__ import annotations

import random
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from autodl_ray.augment.op import Drawn, Family, Op, Target
from autodl_ray.augment.ops.chance import uniform
from autodl_ray.augment.ops.fields import Counts, Parts, Shares, ordered
from autodl_ray.augment.ops.foreign import through_albumentations
from autodl_ray.images import ImageArray

__all__ = ["RandomFog", "RandomRain", "RandomShadow", "RandomSnow", "RandomSunFlare", "Spatter"]

_Slant = Annotated[int, Field(ge=-20, le=20)]
_SPATTER = {"rain": (175, 205, 225), "mud": (70, 50, 30)}
_SMALLEST = 8
"""Below this many pixels a side there is no room for a drop or a flare: albumentations would fail."""


class RandomRain(Op):
    """Let it rain: slanted streaks, a darker and softer picture."""

    family: ClassVar[Family] = "weather"
    kind: Literal["default", "drizzle", "heavy", "torrential"] = Field(
        "default", description="default, drizzle, heavy or torrential"
    )
    slant: Annotated[tuple[_Slant, _Slant], AfterValidator(ordered)] = Field(
        (-10, 10), description="lean of the streaks in degrees, as [low, high] of -20 to 20"
    )
    blur: int = Field(3, ge=1, le=15, description="1 to 15: side of the blur in pixels; 1 is none")
    light: float = Field(0.8, gt=0, le=1, description="above 0 to 1: factor of the brightness")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (seed of the streaks,)."""
        return (rng.getrandbits(32),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Draw the streaks."""
        if min(image.shape[:2]) < _SMALLEST:
            return image
        return through_albumentations(
            "RandomRain",
            image,
            seed=drawn[0],
            slant_range=self.slant,
            rain_type=self.kind,
            blur_value=self.blur,
            brightness_coefficient=self.light,
        )


class RandomSnow(Op):
    """Let snow lie: the darker parts become white."""

    family: ClassVar[Family] = "weather"
    amount: Parts = Field((0.1, 0.3), description="how much turns white, as [low, high] in [0, 1]")
    light: float = Field(2.5, gt=0, le=10, description="above 0 to 10: factor of the brightness of the snow")
    kind: Literal["bleach", "texture"] = Field("bleach", description="bleach (flat snow) or texture (with flakes)")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (seed of the amount and the flakes,)."""
        return (rng.getrandbits(32),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Lay the snow."""
        if min(image.shape[:2]) < _SMALLEST:
            return image
        return through_albumentations(
            "RandomSnow",
            image,
            seed=drawn[0],
            snow_point_range=self.amount,
            brightness_coeff=self.light,
            method=self.kind,
        )


class RandomSunFlare(Op):
    """Let the sun shine into the lens: a bright disc in the upper half, and a row of rings."""

    family: ClassVar[Family] = "weather"
    radius: Shares = Field((0.2, 0.5), description="radius as a share of the shorter side, as [low, high] in (0, 1]")
    kind: Literal["overlay", "physics_based"] = Field(
        "overlay", description="overlay (simple) or physics_based (with streaks)"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (radius as a share, seed of the rest)."""
        return (rng.uniform(*self.radius), rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Draw the flare."""
        if min(image.shape[:2]) < _SMALLEST:
            return image
        radius = 4 * max(1, round(drawn[0] * min(image.shape[:2]) / 4))  # in steps, so that few are made
        return through_albumentations("RandomSunFlare", image, seed=drawn[1], src_radius=radius, method=self.kind)


class RandomFog(Op):
    """Let fog rise: a pale veil, here thicker and there thinner."""

    family: ClassVar[Family] = "weather"
    density: Parts = Field((0.2, 0.6), description="share of the light that is fog, as [low, high] in [0, 1]")
    clouds: Counts = Field((2, 6), description="clouds a side, as [low, high] of 1 to 64")
    colour: int = Field(235, ge=0, le=255, description="0 to 255: brightness of the fog")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (density, clouds a side, seed of the clouds)."""
        return (rng.uniform(*self.density), rng.randint(*self.clouds), rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Mix with the fog."""
        count = int(drawn[1]) + 1
        clouds = uniform(drawn[2], (count, count), low=0.5, high=1.5) * np.float32(drawn[0])
        return _veiled(image, _spread(clouds, image), (self.colour, self.colour, self.colour))


def _spread(coarse: npt.NDArray[np.float32], image: ImageArray) -> npt.NDArray[np.float32]:
    """Scale a coarse map to (H, W) float32 in [0, 1]."""
    fine = cv2.resize(coarse, image.shape[1::-1], interpolation=cv2.INTER_CUBIC).reshape(image.shape[:2])
    return np.asarray(np.clip(fine, 0, 1), dtype=np.float32)


def _veiled(image: ImageArray, share: npt.NDArray[np.float32], colour: tuple[int, int, int]) -> ImageArray:
    """Mix with a colour, of which ``share`` (H, W) says how much."""
    flat = np.full_like(image, colour)
    return np.asarray(cv2.blendLinear(image, flat, 1 - share, share), dtype=np.uint8).reshape(image.shape)


class RandomShadow(Op):
    """Let shadows fall: convex shapes in which it is darker."""

    family: ClassVar[Family] = "weather"
    count: Counts = Field((1, 2), description="shadows, as [low, high] of 1 to 64")
    corners: int = Field(5, ge=3, le=16, description="3 to 16: points around which a shadow is drawn")
    strength: Parts = Field((0.3, 0.6), description="share of the light that is lost, as [low, high] in [0, 1]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (share of the light, then x and y of each corner of each shadow, as shares of the sides)."""
        count = rng.randint(*self.count)
        return (rng.uniform(*self.strength), *(rng.random() for _ in range(count * self.corners * 2)))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Darken within the hulls of the points."""
        sides = np.array([image.shape[1], image.shape[0]])
        polygons = (np.array(drawn[1:]).reshape(-1, self.corners, 2) * sides).astype(np.int32)
        inside = np.zeros(image.shape[:2], dtype=np.uint8)
        for polygon in polygons:
            cv2.fillConvexPoly(inside, cv2.convexHull(polygon), (1,))
        dark = cv2.convertScaleAbs(image, alpha=1 - drawn[0])
        return np.asarray(cv2.copyTo(dark, inside, image.copy()), dtype=np.uint8)


class Spatter(Op):
    """Put drops of rain or mud on the lens (Hendrycks & Dietterich 2019)."""

    family: ClassVar[Family] = "weather"
    cover: Parts = Field((0.05, 0.2), description="share of the picture that is covered, as [low, high] in [0, 1]")
    intensity: Parts = Field((0.4, 0.8), description="how much a drop hides, as [low, high] in [0, 1]")
    size: float = Field(0.03, gt=0, le=0.5, description="above 0 to 0.5: size of a drop as a share of the shorter side")
    kind: Literal["any", "mud", "rain"] = Field("any", description="rain, mud, or any (one of them)")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (share covered, intensity, 1 for mud or 0 for rain, seed of the drops)."""
        mud = rng.getrandbits(1) if self.kind == "any" else int(self.kind == "mud")
        return (rng.uniform(*self.cover), rng.uniform(*self.intensity), mud, rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Where smooth noise is high, there is a drop."""
        cover, intensity, mud, seed = drawn
        height, width = image.shape[:2]
        drop = max(1.0, self.size * min(height, width))
        noise = _spread(uniform(seed, (round(height / drop) + 1, round(width / drop) + 1), low=0, high=1), image)
        threshold = np.quantile(noise[::3, ::3], 1 - cover)
        share = np.clip((noise - np.float32(threshold)) * 8, 0, 1) * np.float32(intensity)
        return _veiled(image, np.asarray(share, dtype=np.float32), _SPATTER["mud" if mud else "rain"])
