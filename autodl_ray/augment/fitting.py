"""Making a scene square: the mask and the boxes follow the picture through the fit."""

from __future__ import annotations

import cv2
import numpy as np

from autodl_ray.augment.op import Boxes, Mask
from autodl_ray.augment.ops.fields import UNKNOWN
from autodl_ray.augment.scene import Scene, cut_boxes
from autodl_ray.images import Fit, Geometry, fit_geometry, fit_image

__all__ = ["fit_scene"]


def fit_scene(scene: Scene, *, size: int, fit: Fit, fill: tuple[int, int, int] = (128, 128, 128)) -> Scene:
    """Scale and place a picture by the fit rule, and its mask and boxes with it.

    Args:
        scene: The picture and what belongs to it.
        size: S, side of the result in pixels.
        fit: ``stretch``, ``crop`` or ``pad``, see :class:`autodl_ray.images.Preprocess`.
        fill: Colour of the margin of ``pad``.

    Returns:
        An (S, S, 3) picture, exactly as :func:`autodl_ray.images.fit_image` makes it, contiguous; an (S, S) mask;
        boxes, cut at the edges and dropped as :func:`autodl_ray.augment.scene.cut_boxes` does.
    """
    height, width = scene.image.shape[:2]
    if height == width == size:  # nothing to do, whatever the rule
        return scene if scene.image.flags.c_contiguous else scene._replace(image=np.ascontiguousarray(scene.image))
    where = fit_geometry(height, width, size=size, fit=fit)
    image = np.ascontiguousarray(fit_image(scene.image, size=size, fit=fit, fill=fill))
    mask = None if scene.mask is None else _fit_mask(scene.mask, where, size)
    if scene.boxes is None:
        return Scene(image, mask, None, scene.labels)
    moved = _fit_boxes(scene.boxes, where, height=height, width=width)
    boxes, kept = cut_boxes(moved, height=size, width=size)
    return Scene(image, mask, boxes, None if scene.labels is None else scene.labels[kept])


def _fit_mask(mask: Mask, where: Geometry, size: int) -> Mask:
    scaled = cv2.resize(mask, (where.width, where.height), interpolation=cv2.INTER_NEAREST_EXACT)
    square = np.full((size, size), UNKNOWN, dtype=np.uint8)
    if where.height >= size and where.width >= size:
        square[:] = scaled[where.top : where.top + size, where.left : where.left + size]
    else:
        square[-where.top : -where.top + where.height, -where.left : -where.left + where.width] = scaled
    return square


def _fit_boxes(boxes: Boxes, where: Geometry, *, height: int, width: int) -> Boxes:
    scale = np.array([where.width / width, where.height / height] * 2, dtype=np.float32)
    shift = np.array([where.left, where.top] * 2, dtype=np.float32)
    return boxes * scale - shift
