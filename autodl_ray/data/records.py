"""What a format reader hands on: one record a picture, with its label or boxes and where its bytes are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from autodl_ray.artifacts.dataset import Split

__all__ = ["Box", "Listing", "Problem", "Range", "Record", "Stamp", "Task", "some"]

Task = Literal["classification", "detection"]
Stamp = tuple[int, int, int, int]
"""(size in bytes, mtime ns, ctime ns, inode) of a file: while it is the same, so is the file."""


class Box(NamedTuple):
    """An object in a picture.

    Attributes:
        label: Name of its class.
        xmin: Left edge in pixels, as the source has it (``pascal_voc``).
        ymin: Top edge.
        xmax: Right edge.
        ymax: Bottom edge.
        difficult: Marked as hard to see (Pascal VOC).
        crowd: Stands for a group of objects (COCO's ``iscrowd``).
    """

    label: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    difficult: bool = False
    crowd: bool = False


class Range(NamedTuple):
    """Where bytes are: a part of a file below the root, such as a member of a tar.

    Attributes:
        file: Relative to the root, with ``/``.
        offset: In bytes.
        length: In bytes; -1: to the end.
    """

    file: str
    offset: int = 0
    length: int = -1


class Record(NamedTuple):
    """A picture of the data set.

    Attributes:
        path: Its name within the data set, with ``/``; no two are equal.
        label: Name of its class (Unicode form NFC); None where pictures have boxes, or no label at all.
        boxes: Its objects; None where the format has none; ``()`` where there is nothing in the picture.
        split: Where the source divides the data set.
        group: Of what must stay together (a patient, a site), where the source says so.
        where: Its bytes; None: the whole file ``root / path``.
        stamp: Of the file that holds its bytes.
    """

    path: str
    label: str | None = None
    boxes: tuple[Box, ...] | None = None
    split: Split | None = None
    group: str | None = None
    where: Range | None = None
    stamp: Stamp = (0, 0, 0, 0)


class Problem(NamedTuple):
    """Something that the reader could not use."""

    path: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """What was found at a place.

    Attributes:
        root: Folder that the bytes of the records are below.
        format: Name of the format, e.g. ``imagefolder``.
        records: Sorted by path.
        classes: Declared names in their order, where the format declares them; else ``()``.
        problems: Pictures and annotations that cannot be used, with their reasons.
        passed_over: What was seen and does not belong, counted, e.g. ``{"files that are no pictures": 3}``.
        notes: Lines for the user.
        metadata: Paths (relative to the root) of files that hold annotations, such as XML or CSV.
    """

    root: Path
    format: str
    records: list[Record]
    classes: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    metadata: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """Detection where pictures have boxes."""
        return "detection" if any(record.boxes is not None for record in self.records) else "classification"

    @property
    def is_split(self) -> bool:
        """Whether the source divides the data set."""
        return any(record.split is not None for record in self.records)

    def read(self, record: Record) -> bytes:
        """Return the bytes of a record.

        Raises:
            OSError: The file cannot be read.
        """
        if record.where is None:
            return (self.root / record.path).read_bytes()
        with (self.root / record.where.file).open("rb") as stream:
            stream.seek(record.where.offset)
            return stream.read(record.where.length)


def some(names: Iterable[str], most: int = 5) -> str:
    """Name the first few of many."""
    shown = list(names)
    more = f" … and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more
