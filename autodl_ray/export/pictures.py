"""Decoded pictures of a split, a few at a time and decoded ahead, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from autodl_ray.artifacts import LearningSamples
from autodl_ray.images import ImageArray, decode_image

__all__ = ["decoded", "spread"]


def spread(total: int, count: int) -> list[int]:
    """Return ``count`` positions evenly over ``range(total)``, or all of them when there are no more.

    Example:
        >>> spread(10, 4)
        [0, 2, 5, 7]
    """
    return [i * total // count for i in range(count)] if count < total else list(range(total))


def decoded(
    samples: LearningSamples, positions: Sequence[int], *, chunk: int = 16
) -> Iterator[tuple[list[int], list[ImageArray]]]:
    """Yield (positions, pictures) of ``chunk`` samples at a time; the next ones are decoded meanwhile.

    Args:
        samples: The split; its original files are read.
        positions: Positions in the split.
        chunk: Pictures at a time.

    Raises:
        DatasetError: A file is no longer readable.
    """
    chunks = [list(positions[i : i + chunk]) for i in range(0, len(positions), chunk)]
    with ThreadPoolExecutor(2) as pool:

        def start(index: int) -> Iterator[ImageArray]:
            return pool.map(lambda p: decode_image(samples.read(p)), chunks[index] if index < len(chunks) else [])

        ahead = start(0)
        for index, part in enumerate(chunks):
            pictures, ahead = list(ahead), start(index + 1)
            yield part, pictures
