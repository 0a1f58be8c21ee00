"""Memory that is kept between the steps of a training instead of being given back and fetched anew."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["kept_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of malloc.h
_DEFAULTS = ((_TRIM_THRESHOLD, 128 * 1024), (_MMAP_THRESHOLD, 128 * 1024), (_MMAP_MAX, 65536))
_WORTH_COLLECTING = 2**26 // 4096  # pages: 64 MiB
_KEEP = ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_THRESHOLD, 2**30), (_MMAP_MAX, 0))


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let glibc's malloc keep freed memory for the length of the block; elsewhere do nothing.

    By default every large tensor is mapped anew, and the kernel clears its pages one by one: 240,000 page faults
    and 0.5 of 3.5 CPU seconds in a training step of EfficientNet-Lite0 with 32 pictures, against none.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    for option, value in _KEEP:
        libc.mallopt(option, value)
    before = _resident_pages()
    try:
        yield
    finally:
        for option, value in _DEFAULTS:
            libc.mallopt(option, value)
        if _resident_pages() - before > _WORTH_COLLECTING:  # 0.2 s with torch loaded: a tiny net trains in that time
            gc.collect()
        libc.malloc_trim(0)


def _resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


def _glibc() -> Any:
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
    except OSError:
        return None
