"""Getting a version from a remote: ranges of packs side by side, only what is missing here, checked by hash."""

from __future__ import annotations

import hashlib
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pyarrow as pa

from autodl_ray.artifacts import Store, open_artifact, write_atomic
from autodl_ray.artifacts.manifest import MANIFEST
from autodl_ray.data.objects import Blob, Packs, writing_packs
from autodl_ray.data.objects.pack import PACK_SUFFIX
from autodl_ray.data.versions.index import read_index
from autodl_ray.data.versions.keeping import INDEX
from autodl_ray.data.versions.push import Moved
from autodl_ray.data.versions.refs import REFS, Entry, Refs
from autodl_ray.data.versions.remote import PACKS, Remote, in_order, remote_places
from autodl_ray.data.versions.side_files import side_rows
from autodl_ray.errors import AutoDLError, StoreError
from autodl_ray.runtime.progress import Progress

__all__ = ["fetch_artifact", "fetch_blobs", "pull"]

_PIECE_BYTES = 4 * 2**20
_GAP_BYTES = 64 * 2**10


class _Piece(NamedTuple):
    """A stretch of a remote pack, and the blobs in it that are wanted."""

    pack: str
    offset: int
    length: int
    blobs: list[tuple[Blob, bytes]]


def pull(ref: str, *, store: Store, remote: Remote, progress: Progress, force: bool = False) -> Moved:
    """Get a version.

    Pictures that are here are not fetched again, so that an interrupted pull goes on where it was. The version is
    listed here last, when everything else is whole and checked.

    Args:
        ref: A tag, an id or ``latest``, of the remote.
        store: Where it goes.
        remote: Where it is.
        progress: Where to report.
        force: Move tags that the store has for another version.

    Raises:
        DatasetError: The remote has no such version.
        StoreError: The remote cannot be read, something there is damaged, or the disk is full.
    """
    with TemporaryDirectory(prefix="autodl-") as temporary:
        with remote.errors("read"):
            theirs = _their_refs(remote, Path(temporary))
        entry = theirs.resolve(ref)
        staging = _stage_artifact(entry, store=store, remote=remote)
        try:
            artifact = open_artifact(staging, verify=True)
            rows = [*read_index(artifact.file(INDEX)), *side_rows(artifact)]
            needed = {bytes.fromhex(row.sha256) for row in rows if row.sha256}
            moved, size = fetch_blobs(needed, store=store, remote=remote, progress=progress)
            _publish(staging, entry.key, store)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        notes = _take_refs(entry, theirs, Refs(store), force=force)
    return Moved(entry.version, len(needed), moved, size, tuple(notes))


def fetch_blobs(needed: Iterable[bytes], *, store: Store, remote: Remote, progress: Progress) -> tuple[int, int]:
    """Get those of the blobs that no pack here has; return how many they were, and their size.

    Raises:
        StoreError: The remote does not have one, or it is damaged there.
    """
    with writing_packs(store) as writer, remote.errors("read"):
        missing = sorted(digest for digest in set(needed) if not writer.has(digest.hex()))
        if not missing:
            return 0, 0
        there = remote_places(remote, remote.sizes(PACKS), known=Packs(store).indexes())
        lost = sum(digest not in there for digest in missing)
        if lost:
            raise StoreError(
                f"{lost} pictures of the version are not at the remote.",
                seen=f"first: sha256 {next(d for d in missing if d not in there).hex()[:12]}…",
                hint="push the version again from where it was made",
            )
        total = sum(there[digest].length for digest in missing)
        fetch = _Fetcher(remote)
        with progress.stage("pull", total) as bar:
            for piece, data in in_order(fetch, _pieces(missing, there)):
                _take(piece, data, writer.add)
                bar.update(writer.added_bytes, total)
    return writer.added, writer.added_bytes


def _pieces(missing: Iterable[bytes], there: Mapping[bytes, Blob]) -> Iterator[_Piece]:
    """Join blobs that lie side by side in a pack (or nearly) into stretches of some 4 MB."""
    piece: _Piece | None = None
    for blob, digest in sorted((there[digest], digest) for digest in missing):
        if piece is not None:
            end = piece.offset + piece.length
            near = blob.pack == piece.pack and 0 <= blob.offset - end <= _GAP_BYTES
            if near and blob.offset + blob.length - piece.offset <= _PIECE_BYTES:
                length = blob.offset + blob.length - piece.offset
                piece = _Piece(piece.pack, piece.offset, length, [*piece.blobs, (blob, digest)])
                continue
            yield piece
        piece = _Piece(blob.pack, blob.offset, blob.length, [(blob, digest)])
    if piece is not None:
        yield piece


class _Fetcher:
    """Reads stretches of remote packs; each pack is opened once, which saves a round trip a stretch."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._lock = threading.Lock()
        self._open: dict[str, pa.NativeFile] = {}

    def __call__(self, piece: _Piece) -> tuple[_Piece, bytes]:
        with self._lock:
            stream = self._open.get(piece.pack)
        if stream is None:
            stream = self._remote.open(f"{PACKS}/{piece.pack}{PACK_SUFFIX}")
            with self._lock:
                stream = self._open.setdefault(piece.pack, stream)
        return piece, bytes(stream.read_at(piece.length, piece.offset))


def _take(piece: _Piece, data: bytes, add: Callable[[str, bytes], None]) -> None:
    for blob, digest in piece.blobs:
        part = data[blob.offset - piece.offset : blob.offset - piece.offset + blob.length]
        if hashlib.sha256(part).digest() != digest:
            raise StoreError(
                "A pack at the remote is damaged; what is whole was kept.",
                seen=f"{piece.pack[:12]} at byte {blob.offset}",
                hint="push the version again from where it was made",
            )
        add(digest.hex(), part)


def fetch_artifact(entry: Entry, *, store: Store, remote: Remote) -> None:
    """Get the index of a version again.

    Raises:
        StoreError: The remote does not have it.
        BundleError: It is damaged there.
    """
    staging = _stage_artifact(entry, store=store, remote=remote)
    try:
        open_artifact(staging, verify=True)
        _publish(staging, entry.key, store)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _stage_artifact(entry: Entry, *, store: Store, remote: Remote) -> Path:
    key = Path(entry.key)
    staging = store.folder("datasets") / f".{key.name}.{uuid.uuid4().hex[:8]}"
    with remote.errors("read"):
        if MANIFEST not in remote.sizes(entry.key):
            raise StoreError("The index of the version is not at the remote.", seen=entry.key, hint="push it again")
        remote.fetch_folder(entry.key, staging)
    return staging


def _publish(staging: Path, key: str, store: Store) -> None:
    """Put the artifact into place; one that is there and whole stays."""
    target = Path(store.root) / key
    try:
        open_artifact(target, verify=True)
        return
    except AutoDLError:  # not there, or damaged
        pass
    old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
    if target.exists():
        target.rename(old)
    staging.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _their_refs(remote: Remote, folder: Path) -> Refs:
    for part in ("history", "tags"):
        remote.fetch_folder(f"{REFS}/{part}", folder / REFS / part)
    return Refs(Store(folder))


def _take_refs(entry: Entry, theirs: Refs, mine: Refs, *, force: bool) -> list[str]:
    for path in theirs.files_of(entry.version):
        if not (mine.history / path.name).exists():
            write_atomic(mine.history / path.name, path.read_bytes())
    notes = []
    for name, version in theirs.tags().items():
        if version != entry.version:
            continue
        if mine.tags().get(name, version) != version and not force:
            notes.append(f"the tag {name} stays with another version here (--force moves it)")
        else:
            mine.tag(name, version, force=True)
    return notes
