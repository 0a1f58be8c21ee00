"""A picture with what belongs to it: its mask and its boxes move with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autodl_ray.augment.op import Boxes, Drawn, Mask, Op, Target
from autodl_ray.images import ImageArray

__all__ = ["MIN_AREA", "MIN_VISIBLE", "Scene", "apply_op", "cut_boxes"]

MIN_AREA = 1.0
"""Square pixels below which a box is dropped."""
MIN_VISIBLE = 0.1
"""Share of a box that must stay in the picture; below it the box is dropped."""


class Scene(NamedTuple):  # a frozen dataclass takes a microsecond more to make, which tiny pictures feel
    """A picture and its annotations.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 class numbers, or None.
        boxes: (N, 4) float32 pascal_voc pixels within the picture, or None.
        labels: (N,) int64, one a box (any number that belongs to the box: a class, or its row), or None.
    """

    image: ImageArray
    mask: Mask | None = None
    boxes: Boxes | None = None
    labels: npt.NDArray[np.int64] | None = None


def apply_op(op: Op, scene: Scene, drawn: Drawn, target: Target) -> Scene:
    """Do one operation to a picture, and to its mask and boxes with it.

    Boxes are cut at the picture's edges; one of which less than :data:`MIN_VISIBLE` is left, or less than
    :data:`MIN_AREA` square pixels, is dropped together with its label.
    """
    image = op.apply(scene.image, drawn, target)
    if scene.mask is None and scene.boxes is None:
        return Scene(image, None, None, scene.labels)
    height, width = scene.image.shape[:2]
    mask = scene.mask if scene.mask is None else op.apply_mask(scene.mask, drawn, target)
    if scene.boxes is None or not op.moves_pixels:
        return Scene(image, mask, scene.boxes, scene.labels)
    moved = op.move_boxes(scene.boxes, drawn, height=height, width=width, target=target)
    boxes, kept = cut_boxes(moved, height=image.shape[0], width=image.shape[1])
    return Scene(image, mask, boxes, None if scene.labels is None else scene.labels[kept])


def cut_boxes(boxes: Boxes, *, height: int, width: int) -> tuple[Boxes, npt.NDArray[np.bool_]]:
    """Cut boxes at the edges of the picture.

    Returns:
        The (K, 4) boxes of which enough is left, and (N,) bool: which those are.
    """
    cut = np.clip(boxes, 0, np.array([width, height, width, height], dtype=np.float32))
    before = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    after = (cut[:, 2] - cut[:, 0]) * (cut[:, 3] - cut[:, 1])
    kept = (after >= MIN_AREA) & (after >= MIN_VISIBLE * before)
    return cut[kept], kept
