"""What fits in memory: how large the decoded pictures of a split are, and how much of them may be kept."""

from __future__ import annotations

import io
import sys
from typing import NamedTuple

import numpy as np
import psutil
from PIL import Image

from autodl_ray.artifacts import TrainSamples
from autodl_ray.data.stream import execution
from autodl_ray.errors import DatasetError
from autodl_ray.images import image_size

__all__ = ["MEMORY_LIMIT", "Sizes", "estimate_sizes", "keeping_limit"]

MEMORY_LIMIT = 2**30
"""Most bytes of decoded pictures that are kept where nothing else is said."""

_STORE_SHARE = 0.3
_FREE_SHARE = 0.5


class Sizes(NamedTuple):
    """Of the pictures of a split, estimated.

    Attributes:
        longest: Longest side, in pixels.
        total_bytes: Of all of them, decoded.
    """

    longest: int
    total_bytes: float


def keeping_limit(wanted: int) -> int:
    """Return the bytes that may be kept: at most ``wanted``, 30 % of the object store and half of the free memory."""
    store = _STORE_SHARE * execution.smallest_store() if execution.ray_is_on() else sys.maxsize
    return int(min(wanted, store, _FREE_SHARE * psutil.virtual_memory().available))


def estimate_sizes(samples: TrainSamples, *, at_least: int, most: int = 64) -> Sizes:
    """Look at the headers of some pictures, evenly chosen; the total is two standard errors above the mean.

    Args:
        samples: The split.
        at_least: Pixels a side that large JPEGs are decoded to.
        most: Pictures that are looked at.
    """
    sides, sizes = [], []
    for position in np.unique(np.linspace(0, len(samples) - 1, most).astype(int)):
        try:
            data = samples.read(int(position))
            width, height = image_size(data)
            shrink = _shrink(data, at_least)
        except (DatasetError, OSError):
            continue
        sides.append(max(width, height))
        sizes.append(3 * -(-width // shrink) * -(-height // shrink))
    if not sizes:
        return Sizes(sys.maxsize, float(sys.maxsize))
    error = float(np.std(sizes)) / len(sizes) ** 0.5
    return Sizes(max(sides), (float(np.mean(sizes)) + 2 * error) * len(samples))


def _shrink(data: bytes, at_least: int) -> int:
    """Return how many times smaller a JPEG is decoded when both sides must keep ``at_least`` pixels."""
    with Image.open(io.BytesIO(data)) as picture:
        whole = picture.size[0]
        picture.draft(None, (at_least, at_least))
        return max(1, round(whole / picture.size[0]))
