"""Four ways to move pixels, each for a picture, its mask and its boxes alike: window, mirror, matrix, displacement."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from autodl_ray.augment.op import Boxes, Drawn, Family, Mask, Op, Target
from autodl_ray.augment.ops.fields import Border
from autodl_ray.images import ImageArray

__all__ = [
    "UNKNOWN",
    "Displaced",
    "Floats",
    "Mirror",
    "Mirrored",
    "Warp",
    "Warped",
    "Window",
    "Windowed",
    "mirror",
    "mirror_boxes",
]

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

UNKNOWN = 255
"""What a mask says of pixels from outside the picture."""
_AREA_FROM = 1.5  # scaled down by more than this, linear interpolation would skip pixels
_ROUNDS = 16
_ALONG_A_SIDE = 17


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


class Mirror(NamedTuple):
    """One of the eight symmetries of a square: first exchange rows and columns, then mirror."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False


def mirror(pixels: Pixels, how: Mirror) -> Pixels:
    """Return (H', W', …) of (H, W, …); the same object where nothing is to do."""
    if how.transpose:
        pixels = np.asarray(cv2.transpose(pixels), dtype=np.uint8)
    if how.flip_x or how.flip_y:
        code = -1 if how.flip_x and how.flip_y else int(how.flip_x)
        pixels = np.asarray(cv2.flip(pixels, code), dtype=np.uint8)
    return pixels


def mirror_boxes(boxes: Boxes, how: Mirror, *, height: int, width: int) -> Boxes:
    """Mirror (N, 4) boxes of a picture of this size."""
    if how.transpose:
        boxes, height, width = boxes[:, [1, 0, 3, 2]], width, height
    if how.flip_x:
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    if how.flip_y:
        boxes = np.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], axis=1)
    return boxes.astype(np.float32)


class Mirrored(Op):
    """An operation that mirrors or turns by quarters: no pixel is lost or mixed."""

    family: ClassVar[Family] = "geometry"
    moves_pixels: ClassVar[bool] = True

    @abstractmethod
    def mirror(self, drawn: Drawn) -> Mirror:
        """Say which of the eight symmetries was drawn."""

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Mirror."""
        return mirror(image, self.mirror(drawn))

    def apply_mask(self, mask: Mask, drawn: Drawn, target: Target) -> Mask:
        """Mirror."""
        return mirror(mask, self.mirror(drawn))

    def move_boxes(self, boxes: Boxes, drawn: Drawn, *, height: int, width: int, target: Target) -> Boxes:
        """Mirror."""
        return mirror_boxes(boxes, self.mirror(drawn), height=height, width=width)


class Warp(NamedTuple):
    """A projective map.

    Attributes:
        matrix: (3, 3) float64, from (x, y, 1) of the picture to that of the result; x and y count from the outer edge,
            so that the middle of the first pixel is 0.5.
        height: Of the result, in pixels.
        width: Of the result, in pixels.
    """

    matrix: Floats
    height: int
    width: int


class Warped(Op):
    """An operation that maps every straight line onto a straight line."""

    family: ClassVar[Family] = "geometry"
    moves_pixels: ClassVar[bool] = True
    border: Border = Field("fill", description="edge (repeat the edge's pixels) or fill (the mean colour)")

    @abstractmethod
    def warp(self, drawn: Drawn, height: int, width: int) -> Warp:
        """Return the map for a picture of this size."""

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Warp, bilinear."""
        warp = self.warp(drawn, image.shape[0], image.shape[1])
        return _warped(image, warp, cv2.INTER_LINEAR, target.fill if self.border == "fill" else None)

    def apply_mask(self, mask: Mask, drawn: Drawn, target: Target) -> Mask:
        """Warp with the nearest pixel."""
        warp = self.warp(drawn, mask.shape[0], mask.shape[1])
        return _warped(mask, warp, cv2.INTER_NEAREST, (UNKNOWN, UNKNOWN, UNKNOWN))

    def move_boxes(self, boxes: Boxes, drawn: Drawn, *, height: int, width: int, target: Target) -> Boxes:
        """Move the four corners, and put an upright box around them."""
        corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]].astype(np.float64)
        matrix = self.warp(drawn, height, width).matrix
        moved = np.concatenate([corners, np.ones((len(boxes), 4, 1))], axis=2) @ matrix.T
        return _around(moved[:, :, :2] / moved[:, :, 2:])


def _around(points: Floats) -> Boxes:
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).astype(np.float32)


def _warped(pixels: Pixels, warp: Warp, how: int, border: tuple[int, int, int] | None) -> Pixels:
    if (warp.height, warp.width) == pixels.shape[:2] and np.array_equal(warp.matrix, np.eye(3)):
        return pixels
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    back = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    matrix = back @ warp.matrix @ half  # cv2 counts from the middle of the first pixel
    affine = np.array_equal(warp.matrix[2], (0, 0, 1))
    do: Any = cv2.warpAffine if affine else cv2.warpPerspective
    mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    size = (warp.width, warp.height)
    warped = do(pixels, matrix[:2] if affine else matrix, size, flags=how, borderMode=mode, borderValue=border or 0)
    return np.asarray(warped, dtype=np.uint8).reshape(*size[::-1], *pixels.shape[2:])


class Displaced(Op):
    """An operation that takes every pixel from a place near by; the size stays."""

    family: ClassVar[Family] = "geometry"
    moves_pixels: ClassVar[bool] = True
    border: Border = Field("edge", description="edge (repeat the edge's pixels) or fill (the mean colour)")

    @abstractmethod
    def field(self, drawn: Drawn, height: int, width: int) -> npt.NDArray[np.float32]:
        """Return (H, W, 2) float32: how far right and down of each pixel its colour is taken from, in pixels.

        Neighbours' displacements must differ by less than their distance: then the map does not fold.
        """

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Take the pixels, bilinear."""
        field = self.field(drawn, image.shape[0], image.shape[1])
        return _displaced(image, field, cv2.INTER_LINEAR, target.fill if self.border == "fill" else None)

    def apply_mask(self, mask: Mask, drawn: Drawn, target: Target) -> Mask:
        """Take the nearest pixels."""
        field = self.field(drawn, mask.shape[0], mask.shape[1])
        return _displaced(mask, field, cv2.INTER_NEAREST, (UNKNOWN, UNKNOWN, UNKNOWN))

    def move_boxes(self, boxes: Boxes, drawn: Drawn, *, height: int, width: int, target: Target) -> Boxes:
        """Find where points of the outline went, and put an upright box around them.

        A point q of the result shows q + d(q); q for a given p is found by repeating q = p - d(q), which converges
        where the map does not fold.
        """
        if len(boxes) == 0:
            return boxes
        field = self.field(drawn, height, width)
        outline = _outline(boxes)
        found = outline
        for _ in range(_ROUNDS):
            at = np.ascontiguousarray(found - np.float32(0.5))
            moved = cv2.remap(field, at[:, :, 0], at[:, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            found = outline - moved
        return _around(found.astype(np.float64))


def _outline(boxes: Boxes) -> npt.NDArray[np.float32]:
    steps = np.linspace(0, 1, _ALONG_A_SIDE, dtype=np.float32)
    zero, one = np.zeros_like(steps), np.ones_like(steps)
    x = np.concatenate([steps, steps, zero, one])
    y = np.concatenate([zero, one, steps, steps])
    low, side = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    return np.asarray(low + side * np.stack([x, y], axis=1), dtype=np.float32)


def _displaced(pixels: Pixels, field: npt.NDArray[np.float32], how: int, border: tuple[int, int, int] | None) -> Pixels:
    height, width = pixels.shape[:2]
    x = field[:, :, 0] + np.arange(width, dtype=np.float32)
    y = field[:, :, 1] + np.arange(height, dtype=np.float32)[:, None]
    mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    return np.asarray(cv2.remap(pixels, x, y, how, borderMode=mode, borderValue=border or 0), dtype=np.uint8)
