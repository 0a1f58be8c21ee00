"""Hashing (and decoding) every picture once; unchanged files are not read again."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, Protocol

from autodl_ray.data.facts.memory import Memory, PictureFacts
from autodl_ray.data.records import Listing, Record
from autodl_ray.errors import DatasetError, RunInterrupted
from autodl_ray.runtime import Context

__all__ = ["Keeper", "PictureFacts", "Reading", "read_facts", "read_pictures"]

_RACY_NS = 100_000_000
_MOST_FILES = 16
_MOST_BYTES = 4 * 2**20


class Keeper(Protocol):
    """Takes the bytes of pictures as they are read, such as :class:`~autodl_ray.data.objects.PackWriter`."""

    def has(self, sha256: str) -> bool:
        """Whether the bytes with this hash are kept already."""
        ...

    def add(self, sha256: str, data: bytes) -> None:
        """Keep the bytes."""
        ...


class Reading(NamedTuple):
    """A picture that was just read.

    Attributes:
        position: Of its record in the listing.
        facts: What was found.
        data: Its bytes; empty when they could not be read.
        settled: Whether its file is old enough to be remembered: one that was written less than 0.1 s before it was
            read could change again without a trace.
    """

    position: int
    facts: PictureFacts
    data: bytes
    settled: bool


def read_facts(
    listing: Listing, *, decode: bool = True, context: Context, keep: Keeper | None = None
) -> list[PictureFacts]:
    """Return the facts of each picture of the listing, in its order.

    A picture is read once; it is not read again while its path, the size, times (ns) and inode of its file and its
    place in that file are those of the last reading of this root into this store.

    Args:
        listing: What is to be read.
        decode: Also see whether each is a picture, and how large.
        context: The store that remembers, the progress, the wish to stop.
        keep: Takes the bytes of every picture that it does not have, from the same reading.

    Raises:
        RunInterrupted: The user asked to stop; what was read is remembered.
    """
    records = listing.records
    memory = Memory.load(context.store, listing.root)
    facts = memory.match(records, decode=decode)
    todo = [i for i, fact in enumerate(facts) if fact is None or _is_missing(fact, keep)]
    lasting = [fact is not None for fact in facts]
    done = len(records) - len(todo)
    with context.progress.stage("check" if decode else "hash", len(records)) as bar:
        try:
            for reading in read_pictures(listing, todo, decode=decode):
                facts[reading.position], lasting[reading.position] = reading.facts, reading.settled
                if keep is not None and reading.facts.sha256 and not keep.has(reading.facts.sha256):
                    keep.add(reading.facts.sha256, reading.data)
                done += 1
                if done % 64 == 0:
                    bar.update(done, len(records))
                    _stop_if_asked(context)
        finally:
            if todo or len(memory) > len(records):
                _remember(memory, records, facts, lasting)
        bar.update(len(records), len(records))
    return [fact for fact in facts if fact is not None]


def _is_missing(fact: PictureFacts, keep: Keeper | None) -> bool:
    return keep is not None and fact.sha256 != "" and not keep.has(fact.sha256)


def _remember(
    memory: Memory, records: Sequence[Record], facts: Sequence[PictureFacts | None], lasting: Sequence[bool]
) -> None:
    kept = [(r, f) for r, f, lasts in zip(records, facts, lasting, strict=True) if f is not None and lasts]
    with contextlib.suppress(OSError):  # a full disk: the next reading takes longer, and nothing else
        memory.save([record for record, _ in kept], [fact for _, fact in kept])


def _stop_if_asked(context: Context) -> None:
    if context.stop.is_set():
        raise RunInterrupted("Stopped while the pictures were read.", hint="run the same line again to go on")


def read_pictures(listing: Listing, positions: Iterable[int], *, decode: bool) -> Iterator[Reading]:
    """Read and hash pictures in threads (both leave the GIL), and yield them in order.

    Few are in memory at a time, however slow the caller is.
    """
    chunks = _chunks(listing.records, positions)
    threads = _num_threads()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
    waiting: deque[Future[list[Reading]]] = deque()
    try:
        waiting.extend(pool.submit(_read_chunk, listing, chunk, decode) for chunk in islice(chunks, 2 * threads))
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(pool.submit(_read_chunk, listing, chunk, decode) for chunk in islice(chunks, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(records: Sequence[Record], positions: Iterable[int]) -> Iterator[list[int]]:
    chunk: list[int] = []
    size = 0
    for position in positions:
        chunk.append(position)
        where = records[position].where
        size += records[position].stamp[0] if where is None or where.length < 0 else where.length
        if len(chunk) == _MOST_FILES or size >= _MOST_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _num_threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, cores + 1)  # one more than there are cores: some wait for the disk


def _read_chunk(listing: Listing, positions: Sequence[int], decode: bool) -> list[Reading]:
    root = str(listing.root)
    found = []
    for position in positions:
        record = listing.records[position]
        settled = time.time_ns() - max(record.stamp[1:3]) > _RACY_NS
        found.append(Reading(position, *_read_one(root, record, decode=decode), settled))
    return found


def _read_one(root: str, record: Record, *, decode: bool) -> tuple[PictureFacts, bytes]:
    try:
        data = _read_bytes(root, record)
    except OSError as error:
        return PictureFacts("", 0, 0, 0, f"The file cannot be read: {error.strerror}.", decode), b""
    digest = hashlib.sha256(data).hexdigest()
    if not decode:
        return PictureFacts(digest, 0, 0, len(data)), data
    from autodl_ray.images import check_image

    try:
        width, height = check_image(data)
    except DatasetError as error:
        return PictureFacts(digest, 0, 0, len(data), error.what, True), data
    return PictureFacts(digest, width, height, len(data), "", True), data


def _read_bytes(root: str, record: Record) -> bytes:
    """Read without the layers of ``open``: for 10,000 small files they cost as much as the hashing."""
    name, offset, length = (record.path, 0, -1) if record.where is None else record.where
    first = min(record.stamp[0] + 1 if length < 0 else length, 2**30)
    # O_NONBLOCK: a pipe that took the place of a file must not hold the reader for ever.
    descriptor = os.open(f"{root}/{name}", os.O_RDONLY | os.O_NONBLOCK)
    try:
        parts = [os.pread(descriptor, first, offset)]
        got = len(parts[0])
        while parts[-1] and (got >= first if length < 0 else got < length):
            parts.append(os.pread(descriptor, 2**24 if length < 0 else length - got, offset + got))
            got += len(parts[-1])
    finally:
        os.close(descriptor)
    if got < length:
        raise OSError(errno.EIO, "the file ends before the picture does")
    return parts[0] if len(parts) == 1 else b"".join(parts)
