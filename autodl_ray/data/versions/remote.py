"""A remote place of versions: the same folders as in a store, on a file system of `pyarrow.fs`."""

from __future__ import annotations

import contextlib
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from autodl_ray.artifacts import write_atomic
from autodl_ray.data.addresses import hidden
from autodl_ray.data.objects import Blob, PackIndex, places_of
from autodl_ray.data.objects.pack import INDEX_SUFFIX, PACK_SUFFIX, parse_pack_index
from autodl_ray.errors import StoreError

__all__ = ["PACKS", "THREADS", "Remote", "in_order", "remote_places"]

PACKS = "objects/packs"
THREADS = 16
T = TypeVar("T")
R = TypeVar("R")


def _with_short_writes(address: str) -> str:
    """Let S3 take a small file in one request instead of three."""
    if not address.startswith("s3://") or "allow_delayed_open" in address:
        return address
    return f"{address}{'&' if '?' in address else '?'}allow_delayed_open=true"


class Remote:
    """Files at an address, read and written whole.

    Args:
        address: A local path, or a URI that ``pyarrow.fs`` understands, e.g. ``s3://bucket/prefix?region=…``;
            credentials come from the environment or the URI, and are never printed.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        try:
            if "://" in address:
                self.fs, self.root = pafs.FileSystem.from_uri(_with_short_writes(address))
            else:
                self.fs, self.root = pafs.LocalFileSystem(), str(Path(address).expanduser().resolve())
        except Exception as error:  # pyarrow raises ArrowInvalid, OSError, ValueError by scheme
            raise StoreError(
                "The address of the remote is not understood.",
                seen=hidden(address),
                accepted="s3://bucket/prefix?region=…&endpoint_override=HOST:PORT&scheme=http, or a folder",
            ) from error
        self.is_local = isinstance(self.fs, pafs.LocalFileSystem)
        if pa.io_thread_count() < THREADS:  # the parts of an upload are sent by these threads
            pa.set_io_thread_count(THREADS)

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Turn errors of the file system into one that names the remote.

        Raises:
            StoreError: Something went wrong there.
        """
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            text = " ".join(str(error).split())
            raise StoreError(
                f"The remote could not be {doing}.",
                seen=f"{hidden(self.address)}: {text[:300]}",
                hint="check address, credentials and network, then run the same line again: what is done is not "
                "done twice",
            ) from error

    def sizes(self, folder: str) -> dict[str, int]:
        """Return name → size of the files of a folder; nothing where there is none."""
        selector = pafs.FileSelector(f"{self.root}/{folder}", allow_not_found=True)
        return {info.base_name: info.size for info in self.fs.get_file_info(selector) if info.is_file}

    def read(self, key: str) -> bytes:
        """Return the bytes of a file."""
        with self.fs.open_input_file(f"{self.root}/{key}") as stream:
            return bytes(stream.read())

    def open(self, key: str) -> pa.NativeFile:
        """Open a file for reads at offsets."""
        return self.fs.open_input_file(f"{self.root}/{key}")

    def size(self, key: str) -> int:
        """Return the size of a file; -1 where there is none."""
        info = self.fs.get_file_info(f"{self.root}/{key}")
        return int(info.size) if info.is_file else -1

    def write(self, key: str, data: bytes | memoryview) -> None:
        """Write a file: whole or not at all, in parts that are sent side by side where the place can do that."""
        target = f"{self.root}/{key}"
        if not self.is_local:  # an object appears when its upload ends
            with self.fs.open_output_stream(target) as stream:
                stream.write(data)
            return
        self.fs.create_dir(target.rsplit("/", 1)[0], recursive=True)
        temporary = f"{target}.{uuid.uuid4().hex[:8]}.part"
        try:
            with self.fs.open_output_stream(temporary) as stream:
                stream.write(data)
            self.fs.move(temporary, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                self.fs.delete_file(temporary)

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Write small files, several at a time."""
        for _ in in_order(lambda item: self.write(*item), files.items()):
            pass

    def fetch_folder(self, key: str, target: Path) -> None:
        """Copy the files of a folder, several at a time."""
        names = sorted(self.sizes(key))
        for name, data in in_order(lambda name: (name, self.read(f"{key}/{name}")), names):
            write_atomic(target / name, data, durable=False)


def in_order(work: Callable[[T], R], items: Iterable[T], *, threads: int = THREADS) -> Iterator[R]:
    """Do the work for each item in threads, and yield the results in order; few wait for the caller at a time."""
    queue = iter(items)
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="remote")
    try:
        waiting.extend(pool.submit(work, item) for item in islice(queue, threads + 2))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(queue, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def remote_places(remote: Remote, sizes: Mapping[str, int], *, known: Mapping[str, PackIndex]) -> dict[bytes, Blob]:
    """Return where each blob is at the remote.

    Args:
        remote: The remote.
        sizes: Of the files in its folder of packs; those count that have an index, which is written last.
        known: Indexes that need not be fetched: a pack of one name has one content.
    """
    indexed = {name.removesuffix(INDEX_SUFFIX) for name in sizes if name.endswith(INDEX_SUFFIX)}
    names = {name for name in indexed if f"{name}{PACK_SUFFIX}" in sizes}
    indexes = {name: known[name] for name in names if name in known}
    fetched = sorted(names - known.keys())
    for name, data in zip(fetched, in_order(lambda n: remote.read(f"{PACKS}/{n}{INDEX_SUFFIX}"), fetched), strict=True):
        indexes[name] = parse_pack_index(data, name)
    return places_of(indexes)
