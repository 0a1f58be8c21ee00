"""Writing blobs into packs: one stream, packs of some 48 MB, each there whole or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from autodl_ray.artifacts import Store
from autodl_ray.data.objects.pack import PackIndex, pack_name, write_pack_index
from autodl_ray.data.objects.packs import Blob, Packs
from autodl_ray.errors import StoreError

__all__ = ["PACK_BYTES", "PackWriter", "disk_errors", "writing_packs"]

PACK_BYTES = 48 * 2**20
_BUFFER_BYTES = 2**20
_BUFFER_BLOBS = 1000  # os.writev takes 1,024
_ON_ITS_WAY = Blob("", 0, 0)


class PackWriter:
    """Adds blobs to the packs of a store.

    Blobs are buffered and written in large pieces; a pack of :data:`PACK_BYTES` is forced to the disk and given its
    name in a thread, while the next one is written; its index follows and makes it count. What a kill leaves is a file
    that ``gc`` deletes.
    """

    def __init__(self, packs: Packs) -> None:
        self.packs = packs
        self.added = 0
        self.added_bytes = 0
        self._where = packs.locate()
        self._touched: set[str] = set()
        self._index: PackIndex = []
        self._size = 0
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._descriptor = -1
        self._temporary = Path()
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="pack")
        self._finishing: list[Future[None]] = []

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
        if self._buffered >= _BUFFER_BYTES or len(self._buffer) >= _BUFFER_BLOBS:
            self._flush()
        if self._size >= PACK_BYTES:
            self._finish()

    def _open(self) -> None:
        self._temporary = self.packs.folder / f".{uuid.uuid4().hex}.part"
        self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)

    def _flush(self) -> None:
        if not self._buffer:
            return
        written = os.writev(self._descriptor, self._buffer)
        if written < self._buffered:  # a signal, or a disk that is nearly full
            rest = memoryview(b"".join(self._buffer))[written:]
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self._buffer, self._buffered = [], 0

    def _finish(self) -> None:
        self._flush()
        for done in [future for future in self._finishing if future.done()]:
            done.result()  # a full disk is told now, not after the next gigabytes
        publish = self._finisher.submit(self._publish, self._descriptor, self._temporary, self._index)
        self._finishing.append(publish)
        self._descriptor, self._index, self._size = -1, [], 0

    def _publish(self, descriptor: int, temporary: Path, index: PackIndex) -> None:
        try:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            name = pack_name(index)
            temporary.replace(self.packs.path(name))  # equal content where another writer was faster
            write_pack_index(self.packs.index_path(name), index)
        finally:
            temporary.unlink(missing_ok=True)

    def close(self) -> None:
        """Finish the pack that is being written, and wait until all packs are on the disk.

        Raises:
            OSError: One could not be written.
        """
        if self._descriptor >= 0:
            self._finish()
        for future in self._finishing:
            future.result()
        self._finishing = []

    def discard(self) -> None:
        """Delete the pack that is being written; those that are finished stay."""
        self._finisher.shutdown()
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
    with disk_errors(store), packs.using():
        writer = PackWriter(packs)
        try:
            yield writer
            writer.close()
        finally:
            writer.discard()


@contextmanager
def disk_errors(store: Store) -> Iterator[None]:
    """Turn what a full or read-only disk raises into an error that says so.

    Raises:
        StoreError: The disk is full, or the store cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
            raise
        raise StoreError(
            "The version could not be written into the store.",
            seen=f"{store.root}: {error.strerror}",
            hint="free some space or choose another with --store, then run the same line again; "
            "what was copied is not copied again",
        ) from error
