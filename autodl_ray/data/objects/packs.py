"""The folder of packs of a store: which blobs are there, where they are, and who may change it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from autodl_ray.artifacts import Store
from autodl_ray.data.objects.pack import INDEX_SUFFIX, PACK_SUFFIX, PackIndex, read_pack_index
from autodl_ray.errors import StoreError

__all__ = ["Blob", "Packs", "places_of"]


class Blob(NamedTuple):
    """Where the bytes with one hash are.

    Attributes:
        pack: Name of the pack.
        offset: In bytes.
        length: In bytes.
    """

    pack: str
    offset: int
    length: int


class Packs:
    """The packs in ``objects/packs`` of a local store.

    A pack counts when its index is there: the index is written last. Packs are never changed, only added, and
    deleted by ``gc`` alone.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.folder("objects/packs")

    def names(self) -> list[str]:
        """Return the names of the packs, sorted."""
        return sorted(path.stem for path in self.folder.glob(f"[0-9a-f]*{INDEX_SUFFIX}"))

    def path(self, name: str) -> Path:
        """Return the path of a pack."""
        return self.folder / f"{name}{PACK_SUFFIX}"

    def index_path(self, name: str) -> Path:
        """Return the path of the index of a pack."""
        return self.folder / f"{name}{INDEX_SUFFIX}"

    def indexes(self) -> dict[str, PackIndex]:
        """Return the index of every pack whose files are both whole.

        A damaged index, or a pack that is gone or of another size, is left out: its blobs count as missing, are
        stored again by the next snapshot, and ``verify`` names them.
        """
        found = {}
        for name in self.names():
            try:
                index = read_pack_index(self.index_path(name))
                if self.path(name).stat().st_size == sum(length for _, length in index):
                    found[name] = index
            except (StoreError, FileNotFoundError):
                continue
        return found

    def locate(self) -> dict[bytes, Blob]:
        """Return where each blob is, by its sha256."""
        return places_of(self.indexes())

    def read(self, blob: Blob) -> bytes:
        """Return the bytes of a blob, unchecked."""
        with self.path(blob.pack).open("rb") as stream:
            return os.pread(stream.fileno(), blob.length, blob.offset)

    def touch(self, name: str) -> None:
        """Say that a pack is about to be used, so that ``gc`` lets it be for its time of grace."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path(name))

    @contextmanager
    def using(self) -> Iterator[None]:
        """Hold off ``gc`` while a version is made of the packs that are there; many may hold at once.

        The lock ends with its process, however that ends.
        """
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def cleaning(self, *, wait_s: float = 5.0) -> Iterator[None]:
        """Be the only one at the packs.

        Raises:
            StoreError: Versions are being made for longer than ``wait_s``.
        """
        with self._locked(fcntl.LOCK_EX, wait_s=wait_s):
            yield

    @contextmanager
    def _locked(self, kind: int, *, wait_s: float | None = None) -> Iterator[None]:
        descriptor = os.open(self.folder.parent / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            deadline = None if wait_s is None else time.monotonic() + wait_s
            while not _try_lock(descriptor, kind):
                if deadline is not None and time.monotonic() > deadline:
                    raise StoreError(
                        "The packs are in use: another process is making a version.",
                        seen=str(self.folder.parent),
                        hint="run the same line again when it has finished",
                    )
                time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EINTR):
            return False
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):  # a network file system without locks: the grace time holds
            return True
        raise
    return True


def places_of(indexes: dict[str, PackIndex]) -> dict[bytes, Blob]:
    """Return where each blob of these packs is; the first pack by name wins."""
    places: dict[bytes, Blob] = {}
    for name, index in sorted(indexes.items()):
        offset = 0
        for digest, length in index:
            places.setdefault(digest, Blob(name, offset, length))
            offset += length
    return places
