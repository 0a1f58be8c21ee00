"""The file format of a pack: blobs one after the other, and beside it an index of what is where."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts import write_atomic
from autodl_ray.errors import StoreError

__all__ = [
    "INDEX_SUFFIX",
    "PACK_SUFFIX",
    "PackIndex",
    "pack_index_bytes",
    "pack_name",
    "parse_pack_index",
    "read_pack_index",
    "write_pack_index",
]

PACK_SUFFIX = ".pack"
INDEX_SUFFIX = ".idx"
_MAGIC = b"autodl pack index 1\n"
_ROW = np.dtype([("sha256", "V32"), ("length", "<i8")])

PackIndex = list[tuple[bytes, int]]
"""(sha256, length) of the blobs of a pack, in their order; the first begins at 0."""


def pack_name(index: Sequence[tuple[bytes, int]]) -> str:
    """Return the name of a pack: the sha256 of its index, which holds the hash of every byte of the pack."""
    return hashlib.sha256(pack_index_bytes(index)).hexdigest()


def pack_index_bytes(index: Sequence[tuple[bytes, int]]) -> bytes:
    """Return an index as it is written: a line that names the format, then 32 + 8 bytes a blob."""
    return _MAGIC + np.array([(digest, length) for digest, length in index], dtype=_ROW).tobytes()


def write_pack_index(path: Path, index: Sequence[tuple[bytes, int]]) -> None:
    """Write the index, whole or not at all."""
    write_atomic(path, pack_index_bytes(index))


def read_pack_index(path: Path, *, name: str | None = None) -> PackIndex:
    """Read an index, and check it against the name of its pack (default: that of its file).

    Raises:
        StoreError: It is damaged.
        FileNotFoundError: It is gone.
    """
    return parse_pack_index(path.read_bytes(), name or path.stem)


def parse_pack_index(data: bytes, name: str) -> PackIndex:
    """Read the bytes of an index, and check them against the name of its pack.

    Raises:
        StoreError: They are damaged.
    """
    if not data.startswith(_MAGIC) or hashlib.sha256(data).hexdigest() != name:
        raise StoreError("The index of a pack is damaged.", seen=name[:12], hint="autodl data verify --repair REMOTE")
    rows: npt.NDArray[np.void] = np.frombuffer(data, _ROW, offset=len(_MAGIC))
    return list(zip(map(bytes, rows["sha256"].tolist()), rows["length"].tolist(), strict=True))
