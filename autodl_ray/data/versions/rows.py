"""From what was found and read to the rows of a version: one mechanism for a run, a snapshot and a check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from autodl_ray.data.cleaning.cheap import cheap_findings
from autodl_ray.data.cleaning.findings import KINDS, Finding
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.facts.reading import PictureFacts
from autodl_ray.data.records import Listing, some
from autodl_ray.data.splits.divide import Division, Picture, divide
from autodl_ray.data.versions.index import IndexRow, class_names, index_row
from autodl_ray.errors import DatasetError
from autodl_ray.spec import SplitSpec

__all__ = ["Table", "find_plain_faults", "make_table"]


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
    placed = [row for row in rows if row.split is not None]
    return Table(rows, class_names(placed or rows, listing.classes), division)


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


def find_plain_faults(table: Table, listing: Listing, facts: Sequence[PictureFacts]) -> dict[str, Any]:
    """Say what is wrong as far as it is seen without a second look at any picture.

    Returns:
        ``faults`` (see :class:`~autodl_ray.data.cleaning.findings.Finding`), ``unreadable``, ``dropped``,
        ``unlisted`` and ``warnings`` (lines for the user), as JSON.
    """
    found = cheap_findings(Subject(listing, facts, table.division.splits))
    unreadable = [f for f in found if f.kind == "unreadable"]
    return {
        "faults": [f.to_json() for f in found],
        "unreadable": [{"path": f.paths[0], "reason": f.reason} for f in unreadable],
        "dropped": table.division.dropped,
        "unlisted": table.division.unlisted,
        "warnings": [*listing.notes, *table.division.notes, *_lines(found)],
    }


def _lines(found: Sequence[Finding]) -> Iterator[str]:
    """Yield a line for each kind of grave fault: of pictures how many and which, of classes the reason."""
    for kind, group in groupby((f for f in found if f.severity != "info"), key=lambda f: f.kind):
        faults = list(group)
        if faults[0].paths:
            yield f"{len(faults)} {KINDS[kind].title}: {some((' = '.join(f.paths[:3]) for f in faults), 3)}"
        else:
            yield some((f.reason.rstrip(".") for f in faults), 3)
