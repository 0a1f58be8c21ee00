"""Writing a data set into a new folder: whole, or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autodl_ray.data.formats.base import Format, Target
from autodl_ray.data.records import Listing, some
from autodl_ray.errors import DatasetError, StoreError
from autodl_ray.images import IMAGE_SUFFIXES

__all__ = ["Progress", "Written", "check_target", "write_listing"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        folder: Where.
        format: In which format.
        pictures: How many pictures.
        boxes: How many boxes.
        notes: What the format could not hold.
    """

    folder: Path
    format: str
    pictures: int
    boxes: int
    notes: tuple[str, ...]


def write_listing(listing: Listing, format: Format, folder: Path, *, force: bool, done: Progress | None) -> Written:
    """Write into a hidden folder beside ``folder``, then put it in place.

    Raises:
        DatasetError: The format cannot hold the data set, or the folder is not empty.
        StoreError: The folder cannot be written.
    """
    check_target(format, folder, force=force)
    _check(listing, format)
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    target = Target(staging, listing.read, _counter(len(listing.records), done))
    assert format.write is not None
    try:
        staging.mkdir(parents=True)
        format.write(listing, target)
        _put_in_place(staging, folder)
    except OSError as error:
        raise StoreError("The folder cannot be written.", seen=f"{folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    boxes = sum(len(record.boxes or ()) for record in listing.records)
    return Written(folder, format.name, len(listing.records), boxes, tuple(target.notes))


def _check(listing: Listing, format: Format) -> None:
    if format.write is None:
        raise DatasetError(
            "This format is only read.", seen=format.name, hint="write parquet, which is read as a table"
        )
    if not listing.records:
        raise DatasetError("There is nothing to write.", seen="0 pictures")
    kind = "boxes" if listing.task == "detection" else "labels"
    if not getattr(format, kind):
        raise DatasetError(
            f"The format cannot hold {kind}.",
            seen=f"{format.name}, and a data set with {kind}",
            accepted="parquet, imagefolder" if kind == "labels" else "parquet, coco, voc, yolo",
        )
    mixed = [r.path for r in listing.records if (r.boxes is None) == (kind == "boxes")]
    if mixed and not format.labels:
        raise DatasetError(f"Some pictures have no boxes, and {format.name} holds nothing else.", seen=some(mixed))


def check_target(format: Format, folder: Path, *, force: bool) -> None:
    """Refuse a format that cannot be written, and a folder that is not empty.

    Raises:
        DatasetError: It is refused.
    """
    if format.write is None:
        raise DatasetError(
            "This format is only read.", seen=format.name, hint="write parquet, which is read as a table"
        )
    if folder.exists() and not folder.is_dir():
        raise DatasetError("The target is no folder.", seen=folder)
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise DatasetError(
            "The target folder is not empty.",
            seen=folder,
            accepted="a new or empty folder",
            hint="--force writes into it; files of the same name are replaced",
        )


def _counter(total: int, done: Progress | None) -> Callable[[], None]:
    written = 0

    def count() -> None:
        nonlocal written
        written += 1
        if done is not None:
            done(written, total)

    return count


def _put_in_place(staging: Path, folder: Path) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        staging.replace(folder)  # an empty folder is replaced as well
        return
    files = [path for path in staging.rglob("*") if path.is_file()]
    files.sort(key=lambda path: not path.name.lower().endswith(IMAGE_SUFFIXES))  # what describes them comes last
    for path in files:
        place = folder / path.relative_to(staging)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
