"""Decoded pictures that are kept in memory: in Ray's object store, seen by every process without a copy."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts import Samples
from autodl_ray.errors import DatasetError
from autodl_ray.images import ImageArray, Preprocess, decode_image, fit_image, image_size

__all__ = ["KeptPictures", "estimate_sides", "keep_raw", "keep_square", "ray_is_on"]


def ray_is_on() -> bool:
    """Whether this process is connected to a Ray (which is not imported to find out)."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@dataclass(frozen=True)
class _Stored:
    """An array in the object store, or in this object where there is no Ray."""

    value: Any

    @classmethod
    def put(cls, array: npt.NDArray[np.uint8]) -> _Stored:
        if not ray_is_on():
            return cls(array)
        import ray

        return cls(ray.put(array))

    def get(self) -> npt.NDArray[np.uint8]:
        if isinstance(self.value, np.ndarray):
            return self.value
        import ray

        array: npt.NDArray[np.uint8] = ray.get(self.value)
        return array


@dataclass(frozen=True)
class KeptPictures:
    """The readable pictures of a split, decoded.

    Attributes:
        rows: (K,) positions in the split of the pictures that could be read.
        heights: (K,) in pixels.
        widths: (K,) in pixels.
        unreadable: Path → reason of the others.
    """

    rows: npt.NDArray[np.int64]
    heights: npt.NDArray[np.int64] = field(repr=False)
    widths: npt.NDArray[np.int64] = field(repr=False)
    unreadable: dict[str, str]
    _pixels: _Stored = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def square(self, size: int) -> ImageArray | None:
        """Return all pictures as (K, S, S, 3) uint8, read-only, where each is S × S already; else None."""
        if (self.heights == size).all() and (self.widths == size).all():
            return self._pixels.get().reshape(len(self), size, size, 3)
        return None

    def views(self) -> list[ImageArray]:
        """Return the pictures, (H, W, 3) uint8 each, read-only, without a copy."""
        pixels = self._pixels.get()
        ends = np.cumsum(self.heights * self.widths * 3)
        starts = ends - self.heights * self.widths * 3
        return [
            pixels[start:end].reshape(height, width, 3)
            for start, end, height, width in zip(starts, ends, self.heights, self.widths, strict=True)
        ]


def estimate_sides(samples: Samples, *, most: int = 64) -> tuple[int, float]:
    """Look at the headers of some pictures, evenly chosen.

    Returns:
        The longest side in pixels, and the mean decoded size in bytes.
    """
    sizes = []
    for position in np.unique(np.linspace(0, len(samples) - 1, most).astype(int)):
        try:
            sizes.append(image_size(samples.read(int(position))))
        except (DatasetError, OSError):
            continue
    if not sizes:
        return sys.maxsize, float(sys.maxsize)
    return max(max(size) for size in sizes), float(np.mean([3 * width * height for width, height in sizes]))


def keep_raw(samples: Samples, *, most_bytes: int) -> KeptPictures | None:
    """Decode all pictures at their own size; None when they need more than ``most_bytes``."""
    return _keep(samples, decode_image, most_bytes)


def keep_square(samples: Samples, preprocess: Preprocess, fill: tuple[int, int, int]) -> KeptPictures:
    """Decode all pictures and scale them to S × S by the fit rule."""

    def read(data: bytes) -> ImageArray:
        return fit_image(decode_image(data), size=preprocess.size, fit=preprocess.fit, fill=fill)

    kept = _keep(samples, read, sys.maxsize)
    assert kept is not None
    return kept


def square_of(kept: KeptPictures, preprocess: Preprocess, fill: tuple[int, int, int]) -> KeptPictures:
    """Scale kept pictures to S × S by the fit rule."""
    size = preprocess.size
    images = [fit_image(image, size=size, fit=preprocess.fit, fill=fill) for image in kept.views()]
    return _pack(images, kept.rows, kept.unreadable)


def _keep(samples: Samples, read: Callable[[bytes], ImageArray], most_bytes: int) -> KeptPictures | None:
    images: list[ImageArray] = []
    rows: list[int] = []
    unreadable: dict[str, str] = {}
    total = 0
    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="keep")
    try:
        for position, result in enumerate(pool.map(lambda i: _read(samples, i, read), range(len(samples)))):
            if isinstance(result, str):
                unreadable[samples.paths[position]] = result
                continue
            total += result.nbytes
            if total > most_bytes:
                return None
            images.append(result)
            rows.append(position)
    finally:
        pool.shutdown(cancel_futures=True)
    return _pack(images, np.array(rows, dtype=np.int64), unreadable)


def _read(samples: Samples, position: int, read: Callable[[bytes], ImageArray]) -> ImageArray | str:
    try:
        return read(samples.read(position))
    except DatasetError as error:
        return error.what
    except OSError as error:
        return f"The file cannot be read: {error.strerror}."


def _pack(images: Sequence[ImageArray], rows: npt.NDArray[np.int64], unreadable: dict[str, str]) -> KeptPictures:
    flat = np.concatenate([image.reshape(-1) for image in images]) if images else np.zeros(0, dtype=np.uint8)
    return KeptPictures(
        rows=rows,
        heights=np.array([image.shape[0] for image in images], dtype=np.int64),
        widths=np.array([image.shape[1] for image in images], dtype=np.int64),
        unreadable=unreadable,
        _pixels=_Stored.put(flat),
    )
