"""Where a model looks: how much less likely its class becomes when a part of the picture is hidden (occlusion).

It needs nothing of the model but its answers, so it works for every bundle, INT8 too. Source: Zeiler and Fergus,
Visualizing and Understanding Convolutional Networks, ECCV 2014, section 4.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from autodl_ray.images import ImageArray, decode_image
from autodl_ray.serve.answers import Answers, Made, ServedModel

__all__ = ["CELLS", "heatmap", "hidden_rows"]

CELLS = 7
"""Rows and columns of the map: 50 answers of the model."""

_MAX_SIDE = 384  # px: a picture is made smaller before its parts are hidden


async def heatmap(behind: Answers, model: ServedModel, data: bytes, position: int) -> dict[str, Any]:
    """Hide one part of the picture after the other.

    Args:
        behind: Who answers.
        model: Which is looked into.
        data: Bytes of the picture.
        position: Of the class that is asked about.

    Returns:
        ``method``, ``class``, and ``cells``: 7 rows of 7 numbers, by how much the probability of the class falls when
        the square around that cell (twice its side) has the picture's mean colour. Below 0: it becomes likelier.

    Raises:
        DatasetError: The bytes are no usable picture.
    """
    image = await behind.run(lambda: _small(decode_image(data, max_pixels=behind.max_pixels)))
    whole = (await behind.probabilities(model, Made([image])))[0, position]
    cells = []
    for row in range(CELLS):  # row by row: others get their turn in between
        hidden = await behind.run(hidden_rows, image, row)
        falls = whole - (await behind.probabilities(model, Made(hidden)))[:, position]
        cells.append([round(float(fall), 5) for fall in falls])
    return {"method": "occlusion", "class": model.classes[position], "cells": cells}


def hidden_rows(image: ImageArray, row: int) -> list[ImageArray]:
    """Return the picture 7 times, each with the square around one cell of ``row`` hidden."""
    height, width = image.shape[:2]
    colour = np.rint(image.mean(axis=(0, 1))).astype(np.uint8)
    top, bottom = _window(row, height)
    hidden = []
    for column in range(CELLS):
        left, right = _window(column, width)
        copy = image.copy()
        copy[top:bottom, left:right] = colour
        hidden.append(copy)
    return hidden


def _window(cell: int, side: int) -> tuple[int, int]:
    step = side / CELLS
    return max(0, round((cell - 0.5) * step)), min(side, max(1, round((cell + 1.5) * step)))


def _small(image: ImageArray) -> ImageArray:
    height, width = image.shape[:2]
    shrink = _MAX_SIDE / max(height, width)
    if shrink >= 1:
        return image
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
