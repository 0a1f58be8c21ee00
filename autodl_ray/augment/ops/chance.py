"""Random numbers for whole pictures, from a seed that was drawn: raw bits and tables instead of one call a number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from statistics import NormalDist

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["normal_strips", "random_bytes", "random_words", "uniform"]

_WORDS = 65536
_STRIP = 16384


def random_bytes(seed: float, count: int) -> npt.NDArray[np.uint8]:
    """Return (count,) uint8, each value as likely."""
    return _raw(seed, count // 8 + 1).view(np.uint8)[:count]


def random_words(seed: float, count: int) -> npt.NDArray[np.uint16]:
    """Return (count,) uint16, each value as likely."""
    return _raw(seed, count // 4 + 1).view(np.uint16)[:count]


def _raw(seed: float, count: int) -> npt.NDArray[np.uint64]:
    # SFC64's raw words cost a tenth of Generator.bytes (31 against 290 us for a photo of 256 x 192 x 3).
    return np.asarray(np.random.SFC64(int(seed)).random_raw(count), dtype="<u8")


def uniform(seed: float, shape: tuple[int, ...], *, low: float, high: float) -> npt.NDArray[np.float32]:
    """Return float32 in [low, high], of 65,536 steps."""
    words = random_words(seed, math.prod(shape)).astype(np.float32)
    words *= np.float32((high - low) / (_WORDS - 1))
    words += np.float32(low)
    return words.reshape(shape)


def normal_strips(
    seed: float, shape: tuple[int, ...], *, std: float, mean: float = 0.0
) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Yield normally distributed float32 for some rows after the others, within 4 standard deviations.

    Each number is the sum of two of 256 values: looking two bytes up costs an eighth of
    ``Generator.standard_normal``. Strips stay in the cache: whole pictures of floats would cost five times as much.

    Yields:
        The rows, and (rows, …) values for them.
    """
    height, row = shape[0], math.prod(shape[1:])
    table = _quantiles() * np.float32(std / math.sqrt(2))
    one, other = random_bytes(seed, 2 * height * row).reshape(2, height, row)
    step = max(1, _STRIP // row)
    for top in range(0, height, step):
        rows = slice(top, top + step)
        values = cv2.add(cv2.LUT(one[rows], table + np.float32(mean)), cv2.LUT(other[rows], table))
        yield rows, np.asarray(values, dtype=np.float32).reshape(-1, *shape[1:])


@cache
def _quantiles() -> npt.NDArray[np.float32]:
    """Return (256,): equally likely values of a normal distribution, of variance 1."""
    values = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])
    return np.asarray(values / values.std(), dtype=np.float32)
