"""Opening a version that is in the store: its pictures are read from the packs, on any machine."""

from __future__ import annotations

from collections.abc import Sequence

from autodl_ray.artifacts import Artifact, DatasetVersion, Store
from autodl_ray.data.facts.reading import read_facts
from autodl_ray.data.objects import Packs
from autodl_ray.data.objects.pack import PACK_SUFFIX
from autodl_ray.data.records import Listing, Range, Record, Stamp, some
from autodl_ray.data.versions.index import INDEX, IndexRow, index_row, read_index
from autodl_ray.data.versions.keeping import keep_version, make_version
from autodl_ray.data.versions.refs import Entry, Refs
from autodl_ray.errors import DatasetError, StoreError
from autodl_ray.runtime import Context

__all__ = ["artifact_of", "open_checked", "open_listing", "open_version", "rows_in_packs", "rows_of"]


def open_version(ref: str, *, store: Store) -> DatasetVersion:
    """Open a version from the store.

    Args:
        ref: A tag, ``latest``, an id, or the first six or more digits of one; ``version:`` may stand before it.
        store: A local store.

    Raises:
        DatasetError: There is no such version, or its pictures were not copied.
        StoreError: A picture is missing from the packs.
    """
    artifact, packs, rows = _located(ref, store)
    return make_version(artifact, packs.folder, rows)


def _located(ref: str, store: Store) -> tuple[Artifact, Packs, list[IndexRow]]:
    entry = Refs(store).resolve(ref)
    artifact, packs = artifact_of(entry, store=store), Packs(store)
    return artifact, packs, rows_in_packs(rows_of(artifact), entry=entry, packs=packs)


def open_listing(ref: str, *, store: Store) -> Listing:
    """Open a version as a listing, as a reader of a format would return it: with its labels, boxes and splits.

    Raises:
        DatasetError: There is no such version, or its pictures were not copied.
        StoreError: A picture is missing from the packs.
    """
    artifact, packs, rows = _located(ref, store)
    stamps = _stamps(rows, packs)
    records = [
        Record(row.path, row.label, row.boxes, row.split, row.group, row.where, stamps[row.where.file])
        for row in rows
        if row.where is not None
    ]
    return Listing(packs.folder, "version", records, tuple(artifact.meta["classes"]))


def open_checked(ref: str, *, context: Context) -> DatasetVersion:
    """Open a version for a run: its pictures are decoded once, as those of a folder are.

    A snapshot keeps bytes and does not look at them. Here pictures that cannot be decoded become samples of no split,
    and the size of the others is known. The id stays the same.

    Raises:
        DatasetError: There is no such version, or its pictures were not copied.
        StoreError: A picture is missing from the packs.
        RunInterrupted: The user asked to stop.
    """
    listing = open_listing(ref, store=context.store)
    facts = read_facts(listing, context=context)
    pairs = zip(listing.records, facts, strict=True)
    rows = [index_row(record, split=record.split, facts=fact) for record, fact in pairs]
    bad = [{"path": row.path, "reason": row.problem} for row in rows if row.problem]
    warnings = [f"{len(bad)} unreadable pictures are skipped: {some(row['path'] for row in bad)}"] if bad else []
    findings = {"unreadable": bad, "warnings": warnings}
    artifact = keep_version(rows, classes=listing.classes, findings=findings, context=context)
    return make_version(artifact, listing.root, rows)


def artifact_of(entry: Entry, *, store: Store) -> Artifact:
    """Return the artifact of a version.

    Raises:
        StoreError: It is gone.
    """
    artifact = store.find(entry.key)
    if artifact is None:
        raise StoreError(
            "The index of the version is gone from the store.",
            seen=entry.key,
            hint=f"get it back: autodl data pull {entry.short} REMOTE",
        )
    return artifact


def rows_of(artifact: Artifact) -> list[IndexRow]:
    """Return the rows of a version, sorted by path."""
    return read_index(artifact.file(INDEX))


def rows_in_packs(rows: Sequence[IndexRow], *, entry: Entry, packs: Packs) -> list[IndexRow]:
    """Return the rows with the place of each picture in the packs.

    Raises:
        DatasetError: The pictures were not copied.
        StoreError: Some are missing.
    """
    places = packs.locate()
    found = []
    missing = []
    for row in rows:
        blob = places.get(bytes.fromhex(row.sha256))
        if blob is None:
            missing.append(row.path)
        else:
            found.append(row._replace(where=Range(f"{blob.pack}{PACK_SUFFIX}", blob.offset, blob.length)))
    if missing and not entry.copied:
        raise DatasetError(
            "The pictures of this version were not copied into the store (--no-copy).",
            seen=f"{entry.short}, taken from {entry.source or entry.name}",
            hint="take the snapshot again without --no-copy",
        )
    if missing:
        raise StoreError(
            f"{len(missing)} pictures of the version are missing from the packs.",
            seen=", ".join(missing[:3]),
            hint=f"autodl data verify {entry.short} --repair REMOTE",
        )
    return found


def _stamps(rows: Sequence[IndexRow], packs: Packs) -> dict[str, Stamp]:
    """The stamp of a pack: its name says what is in it, so that its times do not matter."""
    files = {row.where.file for row in rows if row.where is not None}
    sizes = {name: (packs.folder / name).stat().st_size for name in files}
    return {name: (size, 0, 0, int(name[:15], 16)) for name, size in sizes.items()}
