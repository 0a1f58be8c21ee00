"""Sizes of pictures, from the first bytes of their files."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autodl_ray.errors import DatasetError
from autodl_ray.images import image_size

__all__ = ["picture_size", "picture_sizes"]

_HEAD = 64 * 2**10
_THREADS = 4
_CHUNK = 256


def picture_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) in pixels of the upright picture, or None when the file does not say."""
    try:
        with path.open("rb", buffering=0) as stream:
            head = stream.read(_HEAD)
            try:
                return image_size(head)
            except DatasetError:
                rest = stream.read() if len(head) == _HEAD else b""
                return image_size(head + rest) if rest else None
    except (OSError, DatasetError):
        return None


def picture_sizes(paths: Sequence[Path]) -> list[tuple[int, int] | None]:
    """Return the size of each picture, see :func:`picture_size`; several files are read at once."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return [size for sizes in pool.map(lambda chunk: list(map(picture_size, chunk)), chunks) for size in sizes]
