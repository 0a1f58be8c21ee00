"""Superpixels: patches of neighbouring, similar pixels, each in its mean colour."""

from __future__ import annotations

import math
import random
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from autodl_ray.augment.op import Drawn, Family, Op, Target
from autodl_ray.augment.ops.chance import uniform
from autodl_ray.augment.ops.fields import Parts
from autodl_ray.images import ImageArray

__all__ = ["Superpixels"]

Numbers = npt.NDArray[np.intp]
Values = npt.NDArray[np.float32]

_LONGEST = 128  # the patches are found in a picture of at most this side
_ROUNDS = 3
_COMPACT = 20.0  # how much distance counts against colour, in values of L*a*b* of 0 to 255


class Superpixels(Op):
    """Replace patches of similar pixels by their mean colour (Achanta et al. 2012, SLIC)."""

    family: ClassVar[Family] = "quality"
    patches: int = Field(100, ge=2, le=1000, description="2 to 1000: patches of the picture, about")
    share: Parts = Field((0.1, 0.5), description="share of the patches that is replaced, as [low, high] in [0, 1]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (share, seed of the choice)."""
        return (rng.uniform(*self.share), rng.getrandbits(32))

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Find the patches, and fill some."""
        height, width = image.shape[:2]
        shrink = min(1.0, _LONGEST / max(height, width))
        small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        found = _patches(
            np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), dtype=np.uint8), self.patches
        )
        numbers = cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
        number = np.asarray(numbers).astype(np.intp).ravel()
        count = int(number.max()) + 1
        colours = _means(image.reshape(-1, 3).astype(np.float32), number, count)
        chosen = uniform(drawn[1], (count,), low=0, high=1) < drawn[0]
        result = image.copy(order="C").reshape(-1, 3)
        inside = chosen[number]
        result[inside] = np.rint(colours)[number[inside]].astype(np.uint8)
        return result.reshape(image.shape)


def _patches(image: ImageArray, count: int) -> Numbers:
    """Return (H, W): the number of each pixel's patch.

    A patch begins as a cell of a grid; then each pixel joins the nearest, in place and colour, of its own cell's patch
    and the eight around it, a few times.
    """
    height, width = image.shape[:2]
    side = max(1.0, math.sqrt(height * width / count))
    rows, columns = max(1, round(height / side)), max(1, round(width / side))
    row = (np.arange(height) * rows // height)[:, None].repeat(width, axis=1).ravel()
    column = (np.arange(width) * columns // width)[None, :].repeat(height, axis=0).ravel()
    pixels = _features(image, side)
    around = [
        np.clip(row + dy, 0, rows - 1) * columns + np.clip(column + dx, 0, columns - 1)
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    ]
    candidates, number = np.stack(around), around[4]
    for _ in range(_ROUNDS):
        middles = _means(pixels, number, rows * columns)
        far = np.stack([_distance(pixels, middles, near) for near in around])
        number = np.take_along_axis(candidates, far.argmin(axis=0)[None], axis=0)[0]
    return np.asarray(number.reshape(height, width), dtype=np.intp)


def _distance(pixels: Values, middles: Values, near: Numbers) -> Values:
    """Return (H W,): the squared distance of each pixel from the middle of its candidate."""
    difference = pixels - middles.take(near, axis=0)
    return np.asarray(np.einsum("ij,ij->i", difference, difference), dtype=np.float32)


def _features(image: ImageArray, side: float) -> Values:
    """Return (H W, 5): L*, a*, b*, and the place in the same measure."""
    height, width = image.shape[:2]
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    y, x = np.divmod(np.arange(height * width, dtype=np.float32), np.float32(width))
    return np.column_stack([lab, x * np.float32(_COMPACT / side), y * np.float32(_COMPACT / side)])


def _means(values: Values, number: Numbers, count: int) -> Values:
    """Return (count, K): the mean of the (N, K) values of each number; zero for a number that nobody has."""
    sums = [np.bincount(number, weights=column, minlength=count) for column in values.T]
    return np.asarray(np.stack(sums, axis=1) / np.maximum(np.bincount(number, minlength=count), 1)[:, None], np.float32)
