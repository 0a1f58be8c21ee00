"""Names and bytes of pictures in a data set that is written."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.formats.base import Target
from autodl_ray.data.formats.walk import SKIPPED_FOLDERS, check_twins, split_named
from autodl_ray.data.records import Listing, Record, some
from autodl_ray.errors import DatasetError, StoreError
from autodl_ray.images import IMAGE_SUFFIXES

__all__ = [
    "clean_labels",
    "is_safe",
    "picture_suffix",
    "plain_names",
    "split_of",
    "write_file",
    "write_pictures",
]

_CONTAINERS = ("images", "jpegimages", "img", "imgs")
_MAGIC = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\x00", ".tif"),
    (b"MM\x00*", ".tif"),
    (b"P5", ".pgm"),
    (b"P6", ".ppm"),
)


def picture_suffix(head: bytes) -> str | None:
    """Return the suffix for bytes that start like a picture, None for others.

    Args:
        head: At least the first 12 bytes.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for magic, suffix in _MAGIC if head.startswith(magic)), None)


def is_safe(name: str) -> bool:
    """Whether a name that a file claims for one of its pictures stays below its folder, and can be written down."""
    if not name or "\0" in name or name.startswith("/") or ":" in name.split("/", 1)[0][1:2]:
        return False
    if any(part in ("", ".", "..") for part in name.split("/")):
        return False
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def plain_names(listing: Listing, *, stems: bool = False) -> list[str]:
    """Return a file name for each record, without the folders that say split, label or format; no two are equal.

    Args:
        listing: The data set.
        stems: Names must differ without their suffix too, where a file beside each picture describes it.
    """
    taken: set[str] = set()
    names = []
    for record in listing.records:
        path, suffix = _split_suffix(_visible(_stripped(record)), listing)
        name, number = path, 1
        while (name if stems else name + suffix) in taken:
            number += 1
            name = f"{path}-{number}"
        taken.add(name if stems else name + suffix)
        names.append(name + suffix)
    return names


def _stripped(record: Record) -> str:
    parts = record.path.split("/")
    while len(parts) > 1:
        first = parts[0].casefold()
        is_split = record.split is not None and split_named(first) == record.split
        if not (first in _CONTAINERS or is_split or (record.label is not None and parts[0] == record.label)):
            break
        parts = parts[1:]
    return "/".join(parts)


def _visible(path: str) -> str:
    parts = [f"_{part}" if part.startswith(".") or part in SKIPPED_FOLDERS else part for part in path.split("/")]
    return "/".join(parts)


def _split_suffix(path: str, listing: Listing) -> tuple[str, str]:
    folder, slash, last = path.rpartition("/")
    stem, dot, suffix = last.rpartition(".")
    if not stem or f".{suffix.lower()}" not in IMAGE_SUFFIXES:
        return path, ""
    return f"{folder}{slash}{stem}", ".png" if _becomes_png(listing) else f"{dot}{suffix}"


def _becomes_png(listing: Listing) -> bool:
    return listing.format == "idx"


def clean_labels(labels: Iterable[str], target: Target) -> dict[str, str]:
    """Return a folder name for each label.

    Raises:
        DatasetError: Two labels would share a folder.
    """
    cleaned = {}
    for label in sorted(labels):
        name = label.replace("/", "_").replace("\\", "_").replace("\0", "_").strip() or "_"
        cleaned[label] = f"_{name}" if name.startswith(".") or name in SKIPPED_FOLDERS else name
    changed = [f"{label!r} as {name!r}" for label, name in cleaned.items() if label != name]
    if changed:
        target.notes.append(f"labels that cannot be folder names are written another way: {some(changed)}")
    if len(set(cleaned.values())) < len(cleaned):
        raise DatasetError(
            "Two labels would share a folder.", seen=some(changed), accepted="labels that differ as folder names"
        )
    check_twins(cleaned.values())
    return cleaned


def split_of(record: Record, listing: Listing) -> Split | None:
    """Return the split of a record; None where nothing is divided.

    Raises:
        DatasetError: Others have a split and this one has none, which the format cannot say.
    """
    if record.split is None and listing.is_split:
        raise DatasetError(
            "Some pictures are in no split, which this format cannot say.",
            seen=record.path,
            accepted="every picture in train, val or test, or none of them",
            hint="write parquet, coco or voc instead",
        )
    return record.split


def write_pictures(listing: Listing, paths: Sequence[str], target: Target) -> None:
    """Write the bytes of each record to its path below the target; they are copied, never encoded again.

    The one exception are the raw pixels of IDX, which become PNG without loss.

    Raises:
        DatasetError: A picture cannot be read.
        StoreError: It cannot be written.
    """
    made: set[Path] = set()
    for record, path in zip(listing.records, paths, strict=True):
        try:
            data = target.read(record)
        except OSError as error:
            raise DatasetError("A picture cannot be read.", seen=f"{record.path}: {error.strerror}") from error
        if _becomes_png(listing):
            data = _as_png(data)
        write_file(target.folder / path, data, made)
        target.done()


def write_file(path: Path, data: bytes | str, made: set[Path] | None = None) -> None:
    """Write a file and make its folder.

    Args:
        path: The file.
        data: Its content.
        made: Folders that are known to be there; added to.

    Raises:
        StoreError: It cannot be written.
    """
    try:
        if made is None or path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            if made is not None:
                made.add(path.parent)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    except OSError as error:
        raise StoreError("A file cannot be written.", seen=f"{path}: {error.strerror}") from error


def _as_png(data: bytes) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.open(io.BytesIO(data)).save(out, "PNG")
    return out.getvalue()
