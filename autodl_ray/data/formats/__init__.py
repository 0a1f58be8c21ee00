"""Data sets in the formats that people have them in: recognised, read into one listing, and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from autodl_ray.data.formats.base import Format
from autodl_ray.data.formats.coco import COCO
from autodl_ray.data.formats.detecting import Alternative, Detection, detect_in
from autodl_ray.data.formats.idx import IDX
from autodl_ray.data.formats.imagefolder import IMAGEFOLDER, read_imagefolder
from autodl_ray.data.formats.opening import open_place
from autodl_ray.data.formats.table import PARQUET, TABLE
from autodl_ray.data.formats.voc import VOC
from autodl_ray.data.formats.walk import nfc
from autodl_ray.data.formats.webdataset import WEBDATASET
from autodl_ray.data.formats.writing import Progress, Written, check_target, write_listing
from autodl_ray.data.formats.yolo import YOLO
from autodl_ray.data.records import Listing, Problem
from autodl_ray.errors import DatasetError, near_names

__all__ = [
    "FORMATS",
    "Alternative",
    "Detection",
    "Format",
    "Written",
    "check_write",
    "detect",
    "read",
    "read_found",
    "write",
]

FORMATS: Mapping[str, Format] = MappingProxyType(
    {f.name: f for f in (VOC, COCO, YOLO, IDX, WEBDATASET, IMAGEFOLDER, TABLE, PARQUET)}
)
"""All formats by name; of two that are equally likely the first is taken."""


def detect(path: str | Path, *, cache: Path) -> Detection:
    """Find out of what format a data set is, and why.

    Args:
        path: A folder, a file, an archive, or ``s3://bucket/prefix``.
        cache: Folder for what has to be unpacked or fetched.

    Raises:
        DatasetError: Nothing fits, or several data sets lie there.
    """
    place, opened = open_place(path, cache=cache)
    found = detect_in(place, FORMATS, opened=opened)
    if found is None:
        raise DatasetError(
            "No data set was recognised.",
            seen=path,
            accepted="; ".join(f"{one.name} ({one.doc})" for one in FORMATS.values()),
            hint="say which it is with --format, and autodl tells what is missing",
        )
    return found


def read(path: str | Path, *, cache: Path, format: str = "auto") -> Listing:
    """List a data set, whatever its format is; no pixels are loaded.

    Args:
        path: A folder, a file, an archive, or ``s3://bucket/prefix``.
        cache: Folder for what has to be unpacked, fetched or re-encoded.
        format: A name in :data:`FORMATS`, or ``auto``.

    Raises:
        DatasetError: The data set is not recognised, or cannot be used.

    Example:
        >>> import tempfile
        >>> from autodl_ray.data.samples import write_digits
        >>> folder = Path(tempfile.mkdtemp())
        >>> listing = read(write_digits(folder / "digits", n=50), cache=folder / "cache")
        >>> listing.format, len(listing.records)
        ('imagefolder', 50)
    """
    place, opened = open_place(path, cache=cache)
    if format != "auto":
        found = Detection(_chosen(format).name, "as it was said", 1.0, (), (), place, opened)
        return read_found(found, cache=cache)
    detected = detect_in(place, FORMATS, opened=opened)
    if detected is None and place.is_dir():
        return read_imagefolder(place)  # whose errors say what is wrong with the folder
    return read_found(detected or detect(path, cache=cache), cache=cache)


def read_found(found: Detection, *, cache: Path) -> Listing:
    """List what :func:`detect` found, without opening it again.

    Raises:
        DatasetError: The data set cannot be used.
    """
    listing = FORMATS[found.format].read(found.path, cache)
    said = [found.opened, f"read from the folder {found.inside}" if found.inside else ""]
    listing.notes[:0] = [line for line in said if line]
    return _without_twins(listing)


def _without_twins(listing: Listing) -> Listing:
    """A picture whose name is another's in another Unicode form could not lie beside it on every file system."""
    first: dict[str, str] = {}
    kept = [r for r in listing.records if r.path.isascii() or first.setdefault(nfc(r.path), r.path) == r.path]
    if len(kept) == len(listing.records):
        return listing
    gone = {record.path for record in listing.records} - {record.path for record in kept}
    reason = "Another picture has this name in another Unicode form."
    listing.problems.extend(Problem(path, reason) for path in sorted(gone))
    return replace(listing, records=kept)


def check_write(*, format: str, folder: str | Path, force: bool = False) -> None:
    """Refuse a format that cannot be written, or a folder that must not be written to, before anything is read.

    Raises:
        DatasetError: It is refused.
    """
    check_target(_chosen(format), Path(folder), force=force)


def write(
    listing: Listing,
    *,
    format: str,
    folder: str | Path,
    force: bool = False,
    done: Progress | None = None,
) -> Written:
    """Write a data set in a format, with its splits, boxes and labels; the bytes of pictures are copied.

    Args:
        listing: The data set.
        format: A name in :data:`FORMATS` that can be written.
        folder: Where to; made when missing.
        force: Also into a folder that is not empty; files of the same name are replaced.
        done: Called with (pictures written, all pictures).

    Raises:
        DatasetError: The format cannot hold the data set, or the folder is not empty.
        StoreError: The folder cannot be written.
    """
    return write_listing(listing, _chosen(format), Path(folder), force=force, done=done)


def _chosen(name: str) -> Format:
    if name not in FORMATS:
        raise DatasetError(
            "There is no such format.", seen=name, accepted=", ".join(FORMATS), hint=near_names(name, FORMATS)
        )
    return FORMATS[name]
