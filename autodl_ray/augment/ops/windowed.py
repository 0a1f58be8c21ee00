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

_HALVED = 1.7
"""From this shrinking on a half, scaled up again, is nearer to an antialiased picture than plain scaling (TrashNet)."""


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
        """Cut and scale."""
        window = self.window(drawn, image.shape[0], image.shape[1], target)
        return _scaled(_cut(image, window, self.border_of(target)), window.out_height, window.out_width)

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


def _scaled(part: Pixels, height: int, width: int) -> Pixels:
    """Scale, bilinear; but first halve each side as long as it is to shrink a lot, so that no pixel is skipped.

    Halving takes the mean of two pixels, and is eight times as fast as averaging over areas (1200 x 1200 to
    224 x 224: 0.8 ms against 7). Of an odd side the last pixel is left out.
    """
    while True:
        rows, columns = 1 + (part.shape[0] >= _HALVED * height), 1 + (part.shape[1] >= _HALVED * width)
        if rows == columns == 1:
            break
        h, w = part.shape[0] // rows, part.shape[1] // columns
        part = np.asarray(cv2.resize(part[: h * rows, : w * columns], (w, h)), dtype=np.uint8)
    if part.shape[:2] == (height, width):
        return part
    return np.asarray(cv2.resize(part, (width, height)), dtype=np.uint8)
