"""What is made once from a file's content and kept: unpacked archives, pixels and blobs in a pack."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts.store import write_atomic
from autodl_ray.data.formats.walk import stamp_of
from autodl_ray.data.records import Stamp
from autodl_ray.errors import DatasetError, StoreError

__all__ = ["Pack", "build_once", "content_key", "keep_pack"]

_STALE_S = 24 * 3600.0
_CHUNK = 2**20


def content_key(path: Path, cache: Path) -> str:
    """Return the sha256 (hex) of a file; that of an unchanged file is remembered.

    Raises:
        DatasetError: It cannot be read.
    """
    try:
        stamp = stamp_of(path.stat())
        memo = cache / "keys" / hashlib.sha256(f"{path.resolve()}\n{stamp}".encode()).hexdigest()[:32]
        if memo.exists():
            return memo.read_text()
        with path.open("rb") as stream:
            key = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError("A file cannot be read.", seen=f"{path}: {error.strerror}") from error
    try:
        write_atomic(memo, key, durable=False)
    except OSError as error:
        raise StoreError("The cache cannot be written.", seen=f"{memo}: {error.strerror}") from error
    return key


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Make a folder unless it is there: whole, or not at all.

    Args:
        target: The folder.
        build: Fills the hidden folder that it is given, which is then renamed.

    Raises:
        StoreError: The disk is full or cannot be written.
    """
    if target.is_dir():
        return target
    staging = target.with_name(f".{target.name[:16]}.{uuid.uuid4().hex[:8]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        staging.mkdir()
        build(staging)
        staging.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and target.is_dir():  # another process was first
            return target
        raise StoreError("The cache cannot be written.", seen=f"{target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _sweep(folder: Path) -> None:
    """Delete what killed processes left a day ago or longer."""
    for left in folder.glob(".*"):
        try:
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue


class Pack:
    """Blobs one after the other in a file of the cache.

    Attributes:
        root: Folder of all packs.
        file: The pack, relative to the root.
        offsets: (N,) int64.
        lengths: (N,) int64; -1: there is no such blob.
        stamp: Of the file.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder.parent
        self.file = f"{folder.name}/blobs"
        self.lengths: npt.NDArray[np.int64] = np.load(folder / "lengths.npy")
        sizes = np.maximum(self.lengths, 0)
        self.offsets: npt.NDArray[np.int64] = np.cumsum(sizes) - sizes
        self.stamp: Stamp = stamp_of((self.root / self.file).stat())

    def heads(self, size: int = 16) -> list[bytes]:
        """Return the first bytes of each blob."""
        with (self.root / self.file).open("rb") as stream:
            descriptor = stream.fileno()
            pairs = zip(self.offsets.tolist(), self.lengths.tolist(), strict=True)
            return [os.pread(descriptor, max(0, min(size, length)), offset) for offset, length in pairs]


def keep_pack(cache: Path, key: str, blobs: Callable[[], Iterable[bytes | None]]) -> Pack:
    """Return the pack of ``key``, which is written on the first call.

    Args:
        cache: Folder for what is kept.
        key: Of the content, e.g. a sha256.
        blobs: Yields the blobs; None where there is none.
    """

    def build(folder: Path) -> None:
        with (folder / "blobs").open("wb", buffering=_CHUNK) as stream:
            lengths = [_put(stream, blob) for blob in blobs()]
        np.save(folder / "lengths.npy", np.array(lengths, dtype=np.int64))

    return Pack(build_once(cache / "packs" / key, build))


def _put(stream: IO[bytes], blob: bytes | None) -> int:
    return -1 if blob is None else stream.write(blob)
