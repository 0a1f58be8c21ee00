"""Pixels that are mirrored or turned by quarters, with mask and boxes."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from autodl_ray.augment.op import Boxes, Drawn, Family, Mask, Op, Target
from autodl_ray.images import ImageArray

__all__ = ["Mirror", "Mirrored", "mirror", "mirror_boxes"]

Pixels = npt.NDArray[np.uint8]


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
