"""Random numbers for whole pictures, from a seed that was drawn: raw bits and tables instead of one call a number."""

from __future__ import annotations

from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = ["normal", "random_bytes", "random_words", "uniform"]

_WORDS = 65536


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
    words = random_words(seed, int(np.prod(shape))).astype(np.float32)
    words *= np.float32((high - low) / (_WORDS - 1))
    words += np.float32(low)
    return words.reshape(shape)


def normal(seed: float, shape: tuple[int, ...], *, std: float, mean: float = 0.0) -> npt.NDArray[np.float32]:
    """Return float32, normally distributed, of 65,536 equally likely values up to 4.3 standard deviations.

    Looking a value up costs a sixth of ``Generator.standard_normal``.
    """
    table = _quantiles() * np.float32(std) + np.float32(mean)
    return table.take(random_words(seed, int(np.prod(shape)))).reshape(shape)


@cache
def _quantiles() -> npt.NDArray[np.float32]:
    upper = [NormalDist().inv_cdf((i + 0.5) / _WORDS) for i in range(_WORDS // 2, _WORDS)]
    half = np.array(upper, dtype=np.float32)
    return np.concatenate([-half[::-1], half])
