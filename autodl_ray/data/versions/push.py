"""Sending a version to a remote: packs side by side and in parts, only what is missing there, the list last."""

from __future__ import annotations

import hashlib
import mmap
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from autodl_ray.artifacts import Artifact, Store
from autodl_ray.artifacts.manifest import MANIFEST
from autodl_ray.data.objects import Blob, Packs, places_of
from autodl_ray.data.objects.pack import INDEX_SUFFIX, PACK_SUFFIX, PackIndex, pack_index_bytes, pack_name
from autodl_ray.data.objects.writer import PACK_BYTES
from autodl_ray.data.versions.needs import blobs_of
from autodl_ray.data.versions.opening import artifact_of
from autodl_ray.data.versions.refs import REFS, Entry, Refs
from autodl_ray.data.versions.remote import PACKS, Remote, in_order, remote_places
from autodl_ray.errors import DatasetError, StoreError
from autodl_ray.runtime.progress import Progress

__all__ = ["Moved", "push"]

_PACKS_AT_ONCE = 8


@dataclass(frozen=True)
class Moved:
    """What was moved to or from a remote.

    Attributes:
        version: Id.
        files: How many files the version has.
        moved: How many of them were moved; the others were there.
        moved_bytes: Their size.
        notes: Lines for the user.
    """

    version: str
    files: int
    moved: int
    moved_bytes: int
    notes: tuple[str, ...] = ()


class _Shipment(NamedTuple):
    """A pack that is to be sent: one that lies here, or one made of some blobs of others."""

    name: str
    content: PackIndex
    blobs: list[Blob]


def push(entry: Entry, *, store: Store, remote: Remote, progress: Progress, force: bool = False) -> Moved:
    """Send a version.

    Packs that are there are not sent again, so that an interrupted push goes on where it was. Every blob is hashed
    before it is sent. Packs go first, then the artifact with its manifest last, then the entry and its tags: a version
    is listed at the remote only when it is whole there.

    Args:
        entry: The version.
        store: Where it is.
        remote: Where it goes.
        progress: Where to report.
        force: Move tags that the remote has for another version.

    Raises:
        DatasetError: Its pictures were not copied into the store.
        StoreError: A picture is missing or damaged here, or the remote cannot be written.
    """
    if not entry.copied:
        raise DatasetError(
            "The pictures of this version were not copied into the store, so there is nothing to push.",
            seen=entry.short,
            hint="take the snapshot again without --no-copy",
        )
    packs = Packs(store)
    needed = blobs_of(entry, store=store)
    artifact = artifact_of(entry, store=store)
    indexes = packs.indexes()
    here = places_of(indexes)
    _check_whole(needed, here, entry)
    with remote.errors("written"):
        sizes = remote.sizes(PACKS)
        there = remote_places(remote, sizes, known=indexes)
        shipments = list(_plan(needed.keys() - there.keys(), here, indexes))
        total = sum(_size(shipment) for shipment in shipments)
        _send_packs([s for s in shipments if sizes.get(_pack_file(s)) != _size(s)], packs, remote, progress)
        _send_indexes(shipments, remote)
        _send_artifact(artifact, entry, remote)
        notes = _send_refs(entry, Refs(store), remote, force=force)
    moved = sum(len(shipment.content) for shipment in shipments)
    return Moved(entry.version, len(needed), moved, total, tuple(notes))


def _check_whole(needed: Mapping[bytes, str], here: Mapping[bytes, Blob], entry: Entry) -> None:
    missing = [path for digest, path in needed.items() if digest not in here]
    if missing:
        raise StoreError(
            f"{len(missing)} pictures of the version are missing from the packs.",
            seen=", ".join(sorted(missing)[:3]),
            hint=f"autodl data verify {entry.short} --repair REMOTE",
        )


def _plan(
    missing: Collection[bytes], here: Mapping[bytes, Blob], indexes: Mapping[str, PackIndex]
) -> Iterator[_Shipment]:
    """Send whole packs where at least half of one is missing there; of the others only the missing blobs."""
    by_pack: dict[str, list[tuple[Blob, bytes]]] = defaultdict(list)
    for digest in missing:
        by_pack[here[digest].pack].append((here[digest], digest))
    single: list[tuple[Blob, bytes]] = []
    for name, found in sorted(by_pack.items()):
        if 2 * sum(blob.length for blob, _ in found) < sum(length for _, length in indexes[name]):
            single += sorted(found)
            continue
        yield _Shipment(name, indexes[name], _blobs(name, indexes[name]))
    batch: list[tuple[Blob, bytes]] = []
    size = 0
    for blob, digest in single:
        batch.append((blob, digest))
        size += blob.length
        if size >= PACK_BYTES:
            yield _made_of(batch)
            batch, size = [], 0
    if batch:
        yield _made_of(batch)


def _blobs(name: str, index: PackIndex) -> list[Blob]:
    blobs = []
    offset = 0
    for _, length in index:
        blobs.append(Blob(name, offset, length))
        offset += length
    return blobs


def _made_of(batch: list[tuple[Blob, bytes]]) -> _Shipment:
    index = [(digest, blob.length) for blob, digest in batch]
    return _Shipment(pack_name(index), index, [blob for blob, _ in batch])


def _size(shipment: _Shipment) -> int:
    return sum(length for _, length in shipment.content)


def _pack_file(shipment: _Shipment) -> str:
    return f"{shipment.name}{PACK_SUFFIX}"


def _send_packs(shipments: Collection[_Shipment], packs: Packs, remote: Remote, progress: Progress) -> None:
    def send(shipment: _Shipment) -> int:
        with _contents(shipment, packs) as data:
            _check(shipment, data)
            remote.write(f"{PACKS}/{_pack_file(shipment)}", data)
        return _size(shipment)

    total = sum(_size(shipment) for shipment in shipments)
    sent = 0
    with progress.stage("push", total) as bar:
        for size in in_order(send, shipments, threads=_PACKS_AT_ONCE):
            sent += size
            bar.update(sent, total)


def _send_indexes(shipments: Collection[_Shipment], remote: Remote) -> None:
    """Make the packs count, when all of them arrived whole."""
    if not shipments:
        return
    sizes = remote.sizes(PACKS)
    for shipment in shipments:
        if sizes.get(_pack_file(shipment)) != _size(shipment):
            raise StoreError(
                "A pack did not arrive whole.",
                seen=f"{sizes.get(_pack_file(shipment), 0)} of {_size(shipment)} bytes",
                hint="run the same line again",
            )
    files = {f"{PACKS}/{s.name}{INDEX_SUFFIX}": pack_index_bytes(s.content) for s in shipments}
    remote.write_all(files)


@contextmanager
def _contents(shipment: _Shipment, packs: Packs) -> Iterator[memoryview]:
    """Yield the bytes of a shipment: a pack that lies here is mapped, not read into memory."""
    if packs.path(shipment.name).exists() and _size(shipment):
        with packs.path(shipment.name).open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        view = memoryview(mapped)
        try:
            yield view
        finally:
            view.release()
        return
    yield memoryview(b"".join(packs.read(blob) for blob in shipment.blobs))


def _check(shipment: _Shipment, data: memoryview) -> None:
    offset = 0
    for digest, length in shipment.content:
        if hashlib.sha256(data[offset : offset + length]).digest() != digest:
            raise StoreError(
                "A pack is damaged here; it was not sent.",
                seen=f"{shipment.name[:12]} at byte {offset}",
                hint="autodl data verify --repair REMOTE",
            )
        offset += length


def _send_artifact(artifact: Artifact, entry: Entry, remote: Remote) -> None:
    there = remote.sizes(entry.key)
    if MANIFEST in there and all(there.get(name) == file.bytes for name, file in artifact.manifest.files.items()):
        return
    remote.write_all({f"{entry.key}/{name}": artifact.file(name).read_bytes() for name in artifact.manifest.files})
    remote.write(f"{entry.key}/{MANIFEST}", (artifact.path / MANIFEST).read_bytes())


def _send_refs(entry: Entry, refs: Refs, remote: Remote, *, force: bool) -> list[str]:
    there = remote.sizes(f"{REFS}/history")
    new = [path for path in refs.files_of(entry.version) if path.name not in there]
    remote.write_all({f"{REFS}/history/{path.name}": path.read_bytes() for path in new})
    notes = []
    tags = remote.sizes(f"{REFS}/tags")
    for name, version in refs.tags().items():
        if version != entry.version:
            continue
        path = refs.tag_folder / f"{name}.json"
        key = f"{REFS}/tags/{name}.json"
        taken = path.name in tags and entry.version.encode() not in remote.read(key)
        if taken and not force:
            notes.append(f"the tag {name} stays with another version at the remote (--force moves it)")
        elif taken or path.name not in tags:
            remote.write(key, path.read_bytes())
    return notes
