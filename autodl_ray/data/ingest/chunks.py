"""The work of an ingest, cut into chunks that any process can do by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autodl_ray.artifacts import Store
from autodl_ray.data.facts.reading import PictureFacts, read_pictures
from autodl_ray.data.objects import writing_packs
from autodl_ray.data.records import Listing, Record

__all__ = ["CHUNK_BYTES", "Chunk", "Packed", "chunks_of", "pack_chunk"]

CHUNK_BYTES = 192 * 2**20
"""Of pictures in a chunk: a few packs, so that the last one, which is not full, does not count for much."""
_MOST_RECORDS = 20_000


@dataclass(frozen=True)
class Chunk:
    """Pictures that are read and packed together.

    Attributes:
        root: Folder that their bytes are below.
        positions: Of the records in the listing.
        records: The pictures.
        store: Folder of the store.
        decode: Whether to see if each is a picture, and how large.
    """

    root: str
    positions: tuple[int, ...]
    records: tuple[Record, ...]
    store: str
    decode: bool


@dataclass(frozen=True)
class Packed:
    """What came of a chunk: rows for the index, and no pictures.

    Attributes:
        positions: Of the records in the listing.
        facts: Of each.
        settled: Whether each file is old enough for its facts to be remembered.
        added: Blobs that no pack had.
        added_bytes: Their size.
    """

    positions: tuple[int, ...]
    facts: tuple[PictureFacts, ...]
    settled: tuple[bool, ...]
    added: int
    added_bytes: int


def chunks_of(
    listing: Listing, positions: Sequence[int], *, store: Store, decode: bool, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Chunk]:
    """Cut records into chunks of some ``chunk_bytes``.

    Args:
        listing: The data set.
        positions: Of the records that are to be read.
        store: A local store.
        decode: Whether to see if each is a picture, and how large.
        chunk_bytes: Of pictures in a chunk.
    """
    taken: list[int] = []
    size = 0
    for position in positions:
        record = listing.records[position]
        taken.append(position)
        size += record.stamp[0] if record.where is None or record.where.length < 0 else record.where.length
        if size >= chunk_bytes or len(taken) == _MOST_RECORDS:
            yield _chunk(listing, taken, store, decode)
            taken, size = [], 0
    if taken:
        yield _chunk(listing, taken, store, decode)


def _chunk(listing: Listing, positions: Sequence[int], store: Store, decode: bool) -> Chunk:
    records = tuple(listing.records[position] for position in positions)
    return Chunk(str(listing.root), tuple(positions), records, str(store.root), decode)


def pack_chunk(chunk: Chunk) -> Packed:
    """Read, hash and pack the pictures of a chunk; a few of them are in memory at a time.

    Bytes that a pack has already are not written again. A picture that cannot be read is a row with its problem.

    Raises:
        StoreError: The disk is full, or the store cannot be written.
    """
    listing = Listing(Path(chunk.root), "", list(chunk.records))
    facts: list[PictureFacts] = []
    settled: list[bool] = []
    with writing_packs(Store(chunk.store)) as packs:
        for reading in read_pictures(listing, range(len(chunk.records)), decode=chunk.decode):
            facts.append(reading.facts)
            settled.append(reading.settled)
            if reading.facts.sha256 and not packs.has(reading.facts.sha256):
                packs.add(reading.facts.sha256, reading.data)
    return Packed(chunk.positions, tuple(facts), tuple(settled), packs.added, packs.added_bytes)
