"""Writing blobs into packs: one stream, packs of some 48 MB, each there whole or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autodl_ray.artifacts import Store
from autodl_ray.data.objects.pack import pack_name, write_pack_index
from autodl_ray.data.objects.packs import Blob, Packs
from autodl_ray.errors import StoreError

__all__ = ["PACK_BYTES", "PackWriter", "writing_packs"]

PACK_BYTES = 48 * 2**20
_BUFFER_BYTES = 2**20
_ON_ITS_WAY = Blob("", 0, 0)


class PackWriter:
    """Adds blobs to the packs of a store.

    Blobs are buffered and written in large pieces; a pack of :data:`PACK_BYTES` is closed, forced to the disk, and
    given its name; its index follows and makes it count. What a kill leaves is a file that ``gc`` deletes.
    """

    def __init__(self, packs: Packs) -> None:
        self.packs = packs
        self.added = 0
        self.added_bytes = 0
        self._where = packs.locate()
        self._touched: set[str] = set()
        self._index: list[tuple[bytes, int]] = []
        self._size = 0
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._descriptor = -1
        self._temporary = Path()

    def has(self, sha256: str) -> bool:
        """Whether the blob is in a pack, or on its way into one; if so, its pack is kept from ``gc``."""
        digest = bytes.fromhex(sha256)
        blob = self._where.get(digest)
        if blob is None:
            return False
        if blob.pack and blob.pack not in self._touched:
            self._touched.add(blob.pack)
            self.packs.touch(blob.pack)
        return True

    def add(self, sha256: str, data: bytes) -> None:
        """Add a blob that is not there yet.

        Raises:
            OSError: It could not be written.
        """
        digest = bytes.fromhex(sha256)
        if self._descriptor < 0:
            self._open()
        self._where[digest] = _ON_ITS_WAY
        self._index.append((digest, len(data)))
        self._buffer.append(data)
        self._buffered += len(data)
        self._size += len(data)
        self.added += 1
        self.added_bytes += len(data)
        if self._buffered >= _BUFFER_BYTES:
            self._flush()
        if self._size >= PACK_BYTES:
            self.close()

    def _open(self) -> None:
        self._temporary = self.packs.folder / f".{uuid.uuid4().hex}.part"
        self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)

    def _flush(self) -> None:
        data = memoryview(b"".join(self._buffer))
        self._buffer, self._buffered = [], 0
        while data:
            data = data[os.write(self._descriptor, data) :]

    def close(self) -> None:
        """Finish the pack that is being written."""
        if self._descriptor < 0:
            return
        self._flush()
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        name = pack_name(self._index)
        self._temporary.replace(self.packs.path(name))  # equal content where another writer was faster
        write_pack_index(self.packs.index_path(name), self._index)
        self._index, self._size = [], 0

    def discard(self) -> None:
        """Delete the pack that is being written; those that are finished stay."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._temporary.unlink(missing_ok=True)


@contextmanager
def writing_packs(store: Store) -> Iterator[PackWriter]:
    """Add blobs to the packs of a store; inside, ``gc`` waits.

    Raises:
        StoreError: The disk is full, or the store cannot be written.
    """
    packs = Packs(store)
    with packs.using():
        writer = PackWriter(packs)
        try:
            yield writer
            writer.close()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
                raise StoreError(
                    "The pictures could not be copied into the store.",
                    seen=f"{packs.folder}: {error.strerror}",
                    hint="free some space or choose another with --store, then run the same line again; "
                    "what was copied is not copied again",
                ) from error
            raise
        finally:
            writer.discard()
