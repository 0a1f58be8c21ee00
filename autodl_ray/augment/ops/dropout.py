"""Operations that hide parts of the picture; boxes and masks stay."""

from __future__ import annotations

import math
import random
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from autodl_ray.augment.op import Drawn, Family, Op, Target
from autodl_ray.augment.ops.chance import random_bytes, random_words
from autodl_ray.augment.ops.fields import Counts, Parts, Positives, Shares
from autodl_ray.images import ImageArray

__all__ = ["CoarseDropout", "Cover", "GridDropout", "PixelDropout", "RandomErasing", "XYMasking"]

Cover = Literal["black", "fill", "noise"]
"""What hidden parts show: black, the fill colour, or random pixels."""


class RandomErasing(Op):
    """Cover rectangles of a random area and shape with the fill colour (Zhong et al. 2017)."""

    family: ClassVar[Family] = "dropout"
    holes: int = Field(1, ge=1, le=64, description="rectangles, 1 to 64")
    scale: Shares = Field((0.02, 0.2), description="share of the area of each, as [low, high] in (0, 1]")
    ratio: Positives = Field((0.3, 3.3), description="width / height of each, as [low, high] in (0, 100]")

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
        for top, left, height, width in _rectangles(drawn):
            covered[top : top + height, left : left + width] = target.fill
        return covered


def _rectangles(drawn: Drawn) -> list[tuple[int, int, int, int]]:
    whole = [int(value) for value in drawn]
    return [(whole[i], whole[i + 1], whole[i + 2], whole[i + 3]) for i in range(0, len(whole) - 3, 4)]


def _strip(rng: random.Random, side: int, shares: tuple[float, float]) -> tuple[int, int]:
    """Return (start, length) of a strip within a side, in pixels."""
    length = min(side, max(1, round(side * rng.uniform(*shares))))
    return rng.randint(0, side - length), length


class CoarseDropout(Op):
    """Cover several rectangles, each side of a random share of the picture's (DeVries & Taylor 2017, cutout)."""

    family: ClassVar[Family] = "dropout"
    holes: Counts = Field((1, 6), description="rectangles, as [low, high] of 1 to 64")
    height: Shares = Field((0.05, 0.2), description="share of the picture's height, as [low, high] in (0, 1]")
    width: Shares = Field((0.05, 0.2), description="share of the picture's width, as [low, high] in (0, 1]")
    cover: Cover = Field("fill", description="black, fill (the mean colour) or noise")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (top, left, height, width) of each rectangle in pixels, and last the seed of the noise."""
        drawn: list[float] = []
        for _ in range(rng.randint(*self.holes)):
            (top, h), (left, w) = _strip(rng, height, self.height), _strip(rng, width, self.width)
            drawn += [top, left, h, w]
        return (*drawn, rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Cover."""
        return _covered(image, drawn, self.cover, target)


def _covered(image: ImageArray, drawn: Drawn, cover: Cover, target: Target) -> ImageArray:
    """Cover the rectangles of ``drawn``, whose last number is a seed."""
    covered = image.copy()
    for i, (top, left, height, width) in enumerate(_rectangles(drawn[:-1])):
        hole = covered[top : top + height, left : left + width]
        if cover == "noise":
            hole[...] = random_bytes(drawn[-1] + i, hole.size).reshape(hole.shape)
        else:
            hole[...] = target.fill if cover == "fill" else 0
    return covered


class XYMasking(Op):
    """Cover whole rows and columns, as strips (Park et al. 2019, SpecAugment)."""

    family: ClassVar[Family] = "dropout"
    rows: int = Field(1, ge=0, le=64, description="0 to 64: horizontal strips")
    columns: int = Field(1, ge=0, le=64, description="0 to 64: vertical strips")
    width: Shares = Field((0.02, 0.1), description="width of a strip as a share of the side, as [low, high] in (0, 1]")
    cover: Cover = Field("fill", description="black, fill (the mean colour) or noise")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (top, left, height, width) of each strip in pixels, and last the seed of the noise."""
        drawn: list[float] = []
        for _ in range(self.rows):
            top, h = _strip(rng, height, self.width)
            drawn += [top, 0, h, width]
        for _ in range(self.columns):
            left, w = _strip(rng, width, self.width)
            drawn += [0, left, height, w]
        return (*drawn, rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Cover."""
        return _covered(image, drawn, self.cover, target)


class GridDropout(Op):
    """Cover the squares of a regular grid (Chen et al. 2020, GridMask)."""

    family: ClassVar[Family] = "dropout"
    cells: Counts = Field((4, 8), description="squares along the shorter side, as [low, high] of 1 to 64")
    ratio: float = Field(0.5, gt=0, lt=1, description="above 0, below 1: side of a square as a share of its cell")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (side of a cell in pixels, first row and first column of the grid in pixels)."""
        cell = max(1, round(min(height, width) / rng.randint(*self.cells)))
        return (cell, rng.randrange(cell), rng.randrange(cell))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Cover the squares; a cell of one pixel has no room for one."""
        cell, top, left = (int(value) for value in drawn)
        hole = int(cell * self.ratio)
        rows = (np.arange(image.shape[0]) + top) % cell < hole
        columns = (np.arange(image.shape[1]) + left) % cell < hole
        covered = image.copy()
        covered[np.ix_(rows, columns)] = target.fill
        return covered


class PixelDropout(Op):
    """Cover single pixels with the fill colour."""

    family: ClassVar[Family] = "dropout"
    share: Parts = Field((0.01, 0.1), description="share of the pixels, as [low, high] in [0, 1]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (share, seed of the places)."""
        return (rng.uniform(*self.share), rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Cover."""
        words = random_words(drawn[1], image.shape[0] * image.shape[1]).reshape(image.shape[:2])
        covered = image.copy()
        covered[words < round(drawn[0] * 65536)] = target.fill
        return covered
