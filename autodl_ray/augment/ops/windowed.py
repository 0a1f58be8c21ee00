"""Pixels that move with a window: cut, padded, scaled, with mask and boxes."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from autodl_ray.augment.op import Boxes, Drawn, Family, Mask, Op, Target
from autodl_ray.augment.ops.fields import UNKNOWN
from autodl_ray.images import ImageArray

__all__ = ["Window", "Windowed"]

Pixels = npt.NDArray[np.uint8]

_AREA_FROM = 1.5  # scaled down by more than this, linear interpolation would skip pixels


class Window(NamedTuple):
    """A part of a picture, and the size it is scaled to; all in pixels.

    The part may reach outside the picture: that is padding.
    """

    top: int
    left: int
    height: int
    width: int
    out_height: int
    out_width: int


class Windowed(Op):
    """An operation that cuts or pads a window, and scales it."""

    family: ClassVar[Family] = "geometry"
    moves_pixels: ClassVar[bool] = True

    @abstractmethod
    def window(self, drawn: Drawn, height: int, width: int, target: Target) -> Window:
        """Say which window of a picture of this size becomes the result."""

    def border_of(self, target: Target) -> tuple[int, int, int] | None:
        """Return the colour of pixels from outside the picture; None repeats its edge."""
        return target.fill

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Cut and scale; averaging where the picture shrinks a lot, else bilinear."""
        window = self.window(drawn, image.shape[0], image.shape[1], target)
        part = _cut(image, window, self.border_of(target))
        if part.shape[:2] == (window.out_height, window.out_width):
            return part
        shrinks = max(window.height / window.out_height, window.width / window.out_width) > _AREA_FROM
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(part, (window.out_width, window.out_height), interpolation=how), dtype=np.uint8)

    def apply_mask(self, mask: Mask, drawn: Drawn, target: Target) -> Mask:
        """Cut and scale with the nearest pixel."""
        window = self.window(drawn, mask.shape[0], mask.shape[1], target)
        part = _cut(mask, window, (UNKNOWN, UNKNOWN, UNKNOWN))
        if part.shape == (window.out_height, window.out_width):
            return part
        size = (window.out_width, window.out_height)
        return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)

    def move_boxes(self, boxes: Boxes, drawn: Drawn, *, height: int, width: int, target: Target) -> Boxes:
        """Shift and scale."""
        w = self.window(drawn, height, width, target)
        scale = np.array([w.out_width / w.width, w.out_height / w.height] * 2)
        return np.asarray((boxes - np.array([w.left, w.top] * 2)) * scale, dtype=np.float32)


def _cut(pixels: Pixels, window: Window, border: tuple[int, int, int] | None) -> Pixels:
    height, width = pixels.shape[:2]
    top, left = max(window.top, 0), max(window.left, 0)
    bottom, right = min(window.top + window.height, height), min(window.left + window.width, width)
    part = pixels[top:bottom, left:right]
    if part.shape[:2] == (window.height, window.width):
        return part
    around = (top - window.top, window.top + window.height - bottom)
    beside = (left - window.left, window.left + window.width - right)
    how = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    return np.asarray(cv2.copyMakeBorder(part, *around, *beside, how, value=border or 0), dtype=np.uint8)
