"""Decoded pictures of a part of a split, as one object of Ray's object store that every process maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autodl_ray.images import ImageArray

__all__ = ["Decoded", "Picture"]


class Picture(NamedTuple):
    """A decoded picture.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        scale: (x, y), its size over that of the file's picture: below 1 where a large JPEG was decoded smaller.
    """

    image: ImageArray
    scale: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Decoded:
    """Pictures of any sizes, one after the other.

    Attributes:
        pixels: (sum of H · W · 3,) uint8.
        starts: (K + 1,) int64, where each begins in ``pixels``.
        shapes: (K, 2) int64 height and width; 0 where the picture could not be read.
        scales: (K, 2) float64, see :class:`Picture`.
        failed: Row → reason of those that could not be read.
    """

    pixels: npt.NDArray[np.uint8] = field(repr=False)
    starts: npt.NDArray[np.int64] = field(repr=False)
    shapes: npt.NDArray[np.int64] = field(repr=False)
    scales: npt.NDArray[np.float64] = field(repr=False)
    failed: dict[int, str]

    @classmethod
    def of(cls, found: Sequence[Picture | str]) -> Decoded:
        """Put pictures together; a string is the reason why there is none."""
        images = [np.zeros((0, 0, 3), np.uint8) if isinstance(one, str) else one.image for one in found]
        shapes = np.array([image.shape[:2] for image in images], dtype=np.int64).reshape(-1, 2)
        scales = np.array([(1.0, 1.0) if isinstance(one, str) else one.scale for one in found]).reshape(-1, 2)
        flat = np.concatenate([image.reshape(-1) for image in images]) if images else np.zeros(0, np.uint8)
        starts = np.concatenate([[0], np.cumsum(3 * shapes.prod(axis=1))]).astype(np.int64)
        return cls(flat, starts, shapes, scales, {row: one for row, one in enumerate(found) if isinstance(one, str)})

    def picture(self, row: int) -> Picture | str:
        """Return a picture, read-only and without a copy, or the reason why there is none."""
        if row in self.failed:
            return self.failed[row]
        start, end = self.starts[row : row + 2].tolist()
        height, width = self.shapes[row].tolist()
        x, y = self.scales[row].tolist()
        return Picture(self.pixels[start:end].reshape(height, width, 3), (x, y))
