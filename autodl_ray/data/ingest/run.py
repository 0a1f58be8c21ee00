"""Running an ingest: Ray Data streams its chunks over the cluster; without Ray they are done one after the other."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from autodl_ray.artifacts import Store
from autodl_ray.data.facts.memory import Memory
from autodl_ray.data.facts.reading import PictureFacts
from autodl_ray.data.ingest.chunks import CHUNK_BYTES, Chunk, Packed, chunks_of, pack_chunk
from autodl_ray.data.objects import Packs
from autodl_ray.data.records import Listing
from autodl_ray.data.stream.execution import ray_is_on
from autodl_ray.errors import AutoDLError, StoreError

__all__ = ["Ingested", "ingest"]


@dataclass(frozen=True)
class Ingested:
    """What an ingest did.

    Attributes:
        facts: Of each record, in the order of the listing.
        read: How many pictures were read; the others are unchanged since they were.
        added: Blobs that no pack had.
        added_bytes: Their size.
        tasks: How many chunks there were.
    """

    facts: list[PictureFacts]
    read: int
    added: int
    added_bytes: int
    tasks: int


def ingest(
    listing: Listing,
    *,
    store: Store,
    decode: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
    use_ray: bool | None = None,
    done: Callable[[int, int], None] | None = None,
) -> Ingested:
    """Copy the pictures of a listing into the packs of a store, and remember what was found.

    Only index rows come back from a task; pictures go from the file into a pack and never through the object store,
    so that the size of the data set is no matter. A snapshot that follows reads nothing again. An ingest that was
    stopped goes on with what is missing.

    Args:
        listing: The data set; its bytes must be reachable from every machine of the cluster, as the store must.
        store: A local store, or one on a shared file system.
        decode: Also see whether each is a picture, and how large.
        chunk_bytes: Of pictures in a task.
        use_ray: Whether Ray Data runs the tasks; None: where Ray is on.
        done: Called with (pictures done, all pictures).

    Raises:
        StoreError: The disk is full, or the store cannot be written.
    """
    if not store.is_local:
        raise StoreError(
            "Packs are written into a local store.", seen=store.root, hint="push them with autodl data push"
        )
    memory = Memory.load(store, listing.root)
    facts = memory.match(listing.records, decode=decode)
    there = Packs(store).locate()
    todo = [i for i, fact in enumerate(facts) if fact is None or bytes.fromhex(fact.sha256) not in there]
    lasting = [fact is not None for fact in facts]
    chunks = list(chunks_of(listing, todo, store=store, decode=decode, chunk_bytes=chunk_bytes))
    added = size = 0
    finished = len(facts) - len(todo)
    try:
        for packed in _run(chunks, use_ray=ray_is_on() if use_ray is None else use_ray):
            for position, fact, settled in zip(packed.positions, packed.facts, packed.settled, strict=True):
                facts[position], lasting[position] = fact, settled
            added, size = added + packed.added, size + packed.added_bytes
            finished += len(packed.positions)
            if done is not None:
                done(finished, len(facts))
    finally:
        if todo:
            kept = [(r, f) for r, f, lasts in zip(listing.records, facts, lasting, strict=True) if f and lasts]
            memory.save([record for record, _ in kept], [fact for _, fact in kept])
    return Ingested([fact for fact in facts if fact is not None], len(todo), added, size, len(chunks))


def _run(chunks: Sequence[Chunk], *, use_ray: bool) -> Iterator[Packed]:
    return _with_ray(chunks) if use_ray and chunks else map(pack_chunk, chunks)


def _with_ray(chunks: Sequence[Chunk]) -> Iterator[Packed]:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.WARNING)  # it tells every execution on the terminal
    rows = [{"chunk": pickle.dumps(chunk)} for chunk in chunks]
    tasks = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_task)
    try:
        for row in tasks.iter_rows():
            yield pickle.loads(row["packed"])
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, AutoDLError) else error from error


def _task(row: dict[str, Any]) -> dict[str, Any]:
    return {"packed": pickle.dumps(pack_chunk(pickle.loads(row["chunk"])))}
