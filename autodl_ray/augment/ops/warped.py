"""Pixels that move by a matrix, with mask and boxes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from autodl_ray.augment.op import Boxes, Drawn, Family, Mask, Op, Target
from autodl_ray.augment.ops.fields import UNKNOWN, Border
from autodl_ray.images import ImageArray

__all__ = ["Floats", "Warp", "Warped", "around"]

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


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
        return around(moved[:, :, :2] / moved[:, :, 2:])


_IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def around(points: Floats) -> Boxes:
    """Return the (N, 4) smallest upright boxes around (N, K, 2) points."""
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).astype(np.float32)


def _warped(pixels: Pixels, warp: Warp, how: int, border: tuple[int, int, int] | None) -> Pixels:
    rows = warp.matrix.tolist()  # nine numbers: plain Python is faster than arrays are
    if rows == _IDENTITY and (warp.height, warp.width) == pixels.shape[:2]:
        return pixels
    affine = rows[2] == _IDENTITY[2]
    # cv2 counts from the middle of the first pixel: half a pixel there, the map, and half a pixel back.
    rows = [[a, b, (a + b) / 2 + c] for a, b, c in rows]
    matrix = np.array([[v - w / 2 for v, w in zip(row, rows[2], strict=True)] for row in rows[:2]] + rows[2:])
    do: Any = cv2.warpAffine if affine else cv2.warpPerspective
    mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    size = (warp.width, warp.height)
    warped = do(pixels, matrix[:2] if affine else matrix, size, flags=how, borderMode=mode, borderValue=border or 0)
    return np.asarray(warped, dtype=np.uint8).reshape(*size[::-1], *pixels.shape[2:])
