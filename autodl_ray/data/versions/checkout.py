"""Writing the pictures of a version into a folder, as they were."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from autodl_ray.artifacts import Store
from autodl_ray.data.objects import Packs
from autodl_ray.data.versions.index import IndexRow
from autodl_ray.data.versions.opening import artifact_of, rows_in_packs, rows_of
from autodl_ray.data.versions.refs import Entry
from autodl_ray.data.versions.side_files import side_rows
from autodl_ray.errors import DatasetError, StoreError
from autodl_ray.runtime.progress import Progress

__all__ = ["Checkout", "checkout"]


@dataclass(frozen=True)
class Checkout:
    """What was written.

    Attributes:
        written: Files that were not there, or were replaced.
        equal: Files that were there with the same bytes.
        others: Files in the folder that are not of the version; they are left alone.
    """

    written: int
    equal: int
    others: int


def checkout(entry: Entry, folder: Path, *, store: Store, progress: Progress, force: bool = False) -> Checkout:
    """Write the files of a version.

    Files with the same bytes are left alone, and so are files of other names. Each file is written beside its place
    and then renamed, checked against its hash on the way.

    Args:
        entry: The version.
        folder: Where; it is made when it is not there.
        store: Where the version is.
        progress: Where to report.
        force: Replace files that have other bytes.

    Raises:
        DatasetError: A file would be replaced, a path leads out of the folder, or the pictures were not copied.
        StoreError: A picture is missing or damaged, or the disk is full.
    """
    packs = Packs(store)
    artifact = artifact_of(entry, store=store)
    rows = rows_in_packs([*rows_of(artifact), *side_rows(artifact)], entry=entry, packs=packs)
    root = folder.expanduser().resolve()
    _check_places(rows, root)
    todo = [row for row in rows if not _is_equal(root / row.path, row)]
    changed = [row.path for row in todo if os.path.lexists(root / row.path)]
    if changed and not force:
        raise DatasetError(
            f"{len(changed)} files in the folder have other bytes than the version; nothing was written.",
            seen=", ".join(changed[:5]),
            hint="take a snapshot of them first, choose another folder, or replace them with --force",
        )
    try:
        _write_all(todo, root, packs, progress)
    except OSError as error:
        raise StoreError("The files could not be written.", seen=str(error), hint="run the same line again") from error
    names = {row.path for row in rows}
    others = sum(path.relative_to(root).as_posix() not in names for path in root.rglob("*") if path.is_file())
    return Checkout(len(todo), len(rows) - len(todo), others)


def _check_places(rows: Sequence[IndexRow], root: Path) -> None:
    """Refuse every path that leads out of the folder, by its own words or by a link that is there."""
    parents: set[str] = set()
    for row in rows:
        path = PurePosixPath(row.path)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in row.path:
            raise DatasetError("A path of the version leads out of the folder; nothing was written.", seen=row.path)
        parents.update(str(parent) for parent in path.parents)
    for parent in sorted(parents):
        place = root / parent
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise DatasetError(
                "A link or a file is where a folder has to be; nothing was written.",
                seen=str(place),
                hint="remove it, or choose another folder",
            )


def _is_equal(path: Path, row: IndexRow) -> bool:
    try:
        if path.is_symlink() or path.stat().st_size != row.bytes:
            return False
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == row.sha256
    except OSError:
        return False


def _write_all(rows: Sequence[IndexRow], root: Path, packs: Packs, progress: Progress) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for parent in sorted({(root / row.path).parent for row in rows}):
        parent.mkdir(parents=True, exist_ok=True)
    ordered = sorted(rows, key=lambda row: row.where or ("", 0, 0))
    descriptors: dict[str, int] = {}
    try:
        with progress.stage("checkout", len(ordered)) as bar:
            for done, row in enumerate(ordered, start=1):
                assert row.where is not None
                if row.where.file not in descriptors:
                    for old in descriptors.values():
                        os.close(old)
                    descriptors = {row.where.file: os.open(packs.folder / row.where.file, os.O_RDONLY)}
                data = os.pread(descriptors[row.where.file], row.where.length, row.where.offset)
                _write_one(root / row.path, data, row)
                if done % 64 == 0:
                    bar.update(done, len(ordered))
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def _write_one(path: Path, data: bytes, row: IndexRow) -> None:
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise StoreError("A picture in the packs is damaged.", seen=row.path, hint="autodl data verify --repair REMOTE")
    if path.is_dir() and not path.is_symlink():
        raise DatasetError("A folder is where a file has to be.", seen=str(path), hint="remove it")
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
