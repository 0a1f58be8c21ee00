"""Pixels that are taken from a place near by, each by its own way, with mask and boxes."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from autodl_ray.augment.op import Boxes, Drawn, Family, Mask, Op, Target
from autodl_ray.augment.ops.fields import MAX_REMAPPED, UNKNOWN, Border
from autodl_ray.augment.ops.warped import around
from autodl_ray.images import ImageArray

__all__ = ["Displaced"]

Pixels = npt.NDArray[np.uint8]

_ROUNDS = 16
_ALONG_A_SIDE = 17
_NEAR = 0.01  # pixels


class Displaced(Op):
    """An operation that takes every pixel from a place near by; the size stays.

    A picture with a side above :data:`MAX_REMAPPED` stays as it is, with its mask and boxes.
    """

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
        if max(image.shape[:2]) > MAX_REMAPPED:
            return image
        field = self.field(drawn, image.shape[0], image.shape[1])
        return _displaced(image, field, cv2.INTER_LINEAR, target.fill if self.border == "fill" else None)

    def apply_mask(self, mask: Mask, drawn: Drawn, target: Target) -> Mask:
        """Take the nearest pixels."""
        if max(mask.shape) > MAX_REMAPPED:
            return mask
        field = self.field(drawn, mask.shape[0], mask.shape[1])
        return _displaced(mask, field, cv2.INTER_NEAREST, (UNKNOWN, UNKNOWN, UNKNOWN))

    def move_boxes(self, boxes: Boxes, drawn: Drawn, *, height: int, width: int, target: Target) -> Boxes:
        """Find where points of the outline went, and put an upright box around them.

        A point q of the result shows q + d(q); q for a given p is found by repeating q = p - d(q), which converges
        where the map does not fold.
        """
        if len(boxes) == 0 or max(height, width) > MAX_REMAPPED:
            return boxes
        field = self.field(drawn, height, width)
        outline = _outline(boxes)
        found = outline
        for _ in range(_ROUNDS):
            at = np.ascontiguousarray(found - np.float32(0.5))
            moved = cv2.remap(field, at[:, :, 0], at[:, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            before, found = found, np.asarray(outline - moved, dtype=np.float32)
            if np.abs(found - before).max() < _NEAR:
                break
        return around(found.astype(np.float64))


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
