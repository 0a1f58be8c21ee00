"""From what was found and read to the rows of a version: one mechanism for a run, a snapshot and a check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autodl_ray.data.check import PictureFacts
from autodl_ray.data.index import IndexRow, class_names, index_row
from autodl_ray.data.records import Listing
from autodl_ray.data.splits import Division, Picture, divide
from autodl_ray.errors import DatasetError
from autodl_ray.spec import SplitSpec

__all__ = ["Table", "make_table"]


@dataclass(frozen=True)
class Table:
    """The rows of a version before it is kept.

    Attributes:
        rows: Every picture that was found, sorted by path; in no split where it was left out of all.
        classes: Class names by label.
        division: How the splits came about.
    """

    rows: list[IndexRow]
    classes: tuple[str, ...]
    division: Division


def make_table(
    listing: Listing, facts: Sequence[PictureFacts], spec: SplitSpec, *, seed: int, must_divide: bool = True
) -> Table:
    """Divide the pictures, and put everything together.

    The division looks at names, labels and content alone, not at whether a picture could be decoded: a snapshot,
    which does not decode, and a run give the same version.

    Args:
        listing: What was found.
        facts: Of each record of the listing.
        spec: How to divide.
        seed: Root seed.
        must_divide: Raise where the pictures cannot be divided; else they keep the splits that the source gives,
            and a note says why.

    Raises:
        DatasetError: They cannot be divided.
    """
    pairs = list(zip(listing.records, facts, strict=True))
    pictures = [
        Picture(
            record.path,
            record.label,
            fact.sha256,
            record.split,
            group=record.group,
            labels=tuple(box.label for box in record.boxes or ()),
        )
        for record, fact in pairs
        if fact.bytes
    ]
    skipped = [record.path for record, fact in pairs if not fact.bytes]
    division = _divide(pictures, spec, seed=seed, listing=listing, skipped=skipped, must_divide=must_divide)
    rows = sorted(index_row(record, split=division.splits.get(record.path), facts=fact) for record, fact in pairs)
    return Table(rows, class_names(rows, listing.classes), division)


def _divide(
    pictures: Sequence[Picture],
    spec: SplitSpec,
    *,
    seed: int,
    listing: Listing,
    skipped: Sequence[str],
    must_divide: bool,
) -> Division:
    try:
        return divide(pictures, spec, seed=seed, root=listing.root, skipped=skipped)
    except DatasetError as error:
        if must_divide:
            raise
        given = {picture.path: picture.split for picture in pictures if picture.split is not None}
        return Division(splits=given, notes=[f"not divided: {error.what} ({error.seen})"])
