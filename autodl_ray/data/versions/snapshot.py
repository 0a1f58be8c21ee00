"""Taking a snapshot: the pictures into packs, their rows into an artifact, and at last the entry that lists it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodl_ray.artifacts import Artifact
from autodl_ray.data.addresses import hidden
from autodl_ray.data.facts.reading import PictureFacts, read_facts, read_pictures
from autodl_ray.data.objects import PackWriter, disk_errors, writing_packs
from autodl_ray.data.records import Listing
from autodl_ray.data.versions.index import IndexRow
from autodl_ray.data.versions.keeping import keep_version
from autodl_ray.data.versions.refs import Entry, Refs, check_tag, new_entry
from autodl_ray.data.versions.rows import find_plain_faults, make_table
from autodl_ray.data.versions.side_files import keep_side_files
from autodl_ray.errors import DatasetError
from autodl_ray.runtime import Context
from autodl_ray.spec import SplitSpec

__all__ = ["Snapshot", "keep_snapshot", "snapshot", "store_blobs"]


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot did.

    Attributes:
        entry: The version.
        new: Whether the store did not have it.
        added: Blobs that were copied.
        added_bytes: Their size.
        warnings: What was noticed.
    """

    entry: Entry
    new: bool
    added: int
    added_bytes: int
    warnings: tuple[str, ...]


def snapshot(
    listing: Listing,
    *,
    split: SplitSpec,
    context: Context,
    name: str = "",
    tag: str | None = None,
    message: str = "",
    source: str = "",
    copy: bool = True,
    force: bool = False,
) -> Snapshot:
    """Keep a data set as it is now.

    Bytes are read once, for the hash and for the copy; unchanged files are not read again. Whatever interrupts it,
    the version is listed whole or not at all, and what was copied is not copied again by the next try.

    Args:
        listing: The data set.
        split: How it is divided, where it does not say itself.
        context: Store, seed, progress.
        name: Of the data set; its versions are one history. Default: the name of its folder.
        tag: Names the version.
        message: What there is to say about it.
        source: The address as it was given.
        copy: Copy the pictures into the store; without it the version only knows their hashes.
        force: Move the tag where another version has it.

    Raises:
        DatasetError: It cannot be divided, or changed while it was read.
        StoreError: The disk is full, the store cannot be written, or the tag is taken.
        RunInterrupted: The user asked to stop.
    """
    if tag is not None:
        check_tag(tag)
    with _packs(context, copy) as packs:
        facts = read_facts(listing, decode=False, context=context, keep=packs)
        _refuse_unreadable(listing, facts)
        table = make_table(listing, facts, split, seed=context.seed, must_divide=False)
        findings = find_plain_faults(table, listing, facts)
        findings["side_files"] = [] if packs is None else keep_side_files(listing, packs)
        return _keep(
            table.rows, classes=table.classes, findings=findings, packs=packs, context=context,
            name=name or listing.root.name, tag=tag, message=message, source=source, force=force,
        )  # fmt: skip


def keep_snapshot(
    rows: Sequence[IndexRow],
    *,
    listing: Listing,
    classes: Sequence[str],
    findings: Mapping[str, Any],
    context: Context,
    name: str,
    parent: str | None = None,
    tag: str | None = None,
    message: str = "",
    source: str = "",
    force: bool = False,
) -> Snapshot:
    """Keep rows that are already divided (such as those of a cleaned version), with their pictures.

    Args:
        rows: The pictures; those of them that are in no pack are read from the listing.
        listing: Has a record for the path of each row.
        classes: Class names by label.
        findings: What was noticed, as JSON.
        context: Store, progress.
        name: Of the data set.
        parent: The version it was made from; None: the newest one of that name.
        tag: Names the version.
        message: What there is to say about it.
        source: The address as it was given.
        force: Move the tag where another version has it.

    Raises:
        DatasetError: A picture changed since its row was made.
        StoreError: The disk is full, the store cannot be written, or the tag is taken.
    """
    if tag is not None:
        check_tag(tag)
    with writing_packs(context.store) as packs:
        _add_missing(packs, listing, rows, context=context)
        findings = {**findings, "side_files": keep_side_files(listing, packs)}
        return _keep(
            rows, classes=classes, findings=findings, packs=packs, context=context, name=name, tag=tag,
            message=message, source=source, force=force, parent=parent,
        )  # fmt: skip


def store_blobs(listing: Listing, rows: Sequence[IndexRow], *, context: Context) -> int:
    """Copy the pictures of rows into packs, where no pack has them; return how many were copied.

    Nothing lists them yet: ``gc`` may delete them after its time of grace.

    Raises:
        DatasetError: A picture changed since its row was made.
        StoreError: The disk is full, or the store cannot be written.
    """
    with writing_packs(context.store) as packs:
        _add_missing(packs, listing, rows, context=context)
    return packs.added


@contextlib.contextmanager
def _packs(context: Context, copy: bool) -> Iterator[PackWriter | None]:
    if not copy:
        with disk_errors(context.store):
            yield None
        return
    with writing_packs(context.store) as packs:
        yield packs


def _add_missing(packs: PackWriter, listing: Listing, rows: Sequence[IndexRow], *, context: Context) -> None:
    wanted = {row.path: row.sha256 for row in rows if row.sha256 and not packs.has(row.sha256)}
    positions = [i for i, record in enumerate(listing.records) if _nfc(record.path) in wanted]
    if len(positions) < len(wanted):
        known = {_nfc(record.path) for record in listing.records}
        raise DatasetError("A picture is gone.", seen=", ".join(sorted(set(wanted) - known)[:3]))
    with context.progress.stage("copy", len(positions)) as bar:
        for done, reading in enumerate(read_pictures(listing, positions, decode=False), start=1):
            path = _nfc(listing.records[reading.position].path)
            if reading.facts.sha256 != wanted[path]:
                raise DatasetError(
                    "A picture changed while the version was made.",
                    seen=path + (f": {reading.facts.problem}" if reading.facts.problem else ""),
                    hint="run the same line again",
                )
            if not packs.has(reading.facts.sha256):
                packs.add(reading.facts.sha256, reading.data)
            if done % 64 == 0:
                bar.update(done, len(positions))


def _refuse_unreadable(listing: Listing, facts: Sequence[PictureFacts]) -> None:
    bad = [(r.path, f.problem) for r, f in zip(listing.records, facts, strict=True) if not f.sha256]
    if bad:
        raise DatasetError(
            f"{len(bad)} files cannot be read, so there is no copy of them to keep.",
            seen=", ".join(f"{path} ({why.rstrip('.')})" for path, why in bad[:3]),
            hint="repair, remove or allow them, then run the same line again",
        )


def _keep(
    rows: Sequence[IndexRow],
    *,
    classes: Sequence[str],
    findings: Mapping[str, Any],
    packs: PackWriter | None,
    context: Context,
    name: str,
    tag: str | None,
    message: str,
    source: str,
    force: bool,
    parent: str | None = None,
) -> Snapshot:
    """Packs first, then the artifact, then the entry, then the tag: each is of use only when those before are whole."""
    if packs is not None:
        packs.close()
    artifact = keep_version(rows, classes=classes, findings=findings, context=context)
    refs = Refs(context.store)
    version = str(artifact.meta["version"])
    known = {entry.version: entry for entry in refs.entries()}.get(version)
    entry = new_entry(
        version,
        f"datasets/{artifact.path.name}",
        name=name,
        parent=parent or refs.parent_of(name, version),
        message=message,
        source="" if Path(source).is_absolute() else hidden(source),
        copied=packs is not None,
        facts=_facts(artifact),
    )
    if known is None or message or (entry.copied and not known.copied) or refs.resolve("latest").version != version:
        refs.add(entry)
    else:
        entry = known
    if tag is not None:
        refs.tag(tag, version, force=force)
    added, size = (0, 0) if packs is None else (packs.added, packs.added_bytes)
    return Snapshot(entry, known is None, added, size, tuple(findings.get("warnings", ())))


def _facts(artifact: Artifact) -> dict[str, Any]:
    meta = artifact.meta
    return {name: meta[name] for name in ("task", "pictures", "bytes", "boxes", "sizes")} | {
        "classes": len(meta["classes"])
    }


def _nfc(text: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFC", text)
