"""From what was found and read to the rows of a version: one mechanism for a run, a snapshot and a check."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autodl_ray.data.check import PictureFacts
from autodl_ray.data.index import IndexRow, class_names, index_row
from autodl_ray.data.records import Listing, some
from autodl_ray.data.splits import Division, Picture, divide
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


def find_plain_faults(table: Table, listing: Listing) -> dict[str, Any]:
    """Say what is seen without a second look: unreadable pictures, identical ones, what was left out, and why.

    Returns:
        ``unreadable``, ``duplicates``, ``dropped``, ``unlisted`` and ``warnings`` (lines for the user), as JSON.
    """
    unreadable = [(row.path, row.problem) for row in table.rows if row.problem]
    unreadable += [(problem.path, problem.reason) for problem in listing.problems]
    placed = [row for row in table.rows if row.split is not None]
    duplicates = _duplicates(placed or table.rows)  # what was left out for its twin is said below "dropped"
    conflicts = [d for d in duplicates if len(d["labels"]) > 1]
    warnings = [*listing.notes, *table.division.notes]
    if unreadable:
        warnings.append(f"{len(unreadable)} unreadable pictures are skipped: {some((p for p, _ in unreadable), 3)}")
    if conflicts:
        shown = some((" = ".join(d["paths"]) for d in conflicts), 3)
        warnings.append(f"{len(conflicts)} identical pictures have different labels: {shown}")
    if len(duplicates) > len(conflicts):
        warnings.append(f"{len(duplicates) - len(conflicts)} pictures are there more than once, in one split each")
    return {
        "unreadable": [{"path": path, "reason": reason} for path, reason in unreadable],
        "duplicates": duplicates,
        "dropped": table.division.dropped,
        "unlisted": table.division.unlisted,
        "warnings": warnings,
    }


def _duplicates(rows: Sequence[IndexRow]) -> list[dict[str, Any]]:
    groups: dict[str, list[IndexRow]] = defaultdict(list)
    for row in rows:
        if row.bytes and not row.problem:
            groups[row.sha256].append(row)
    return [
        {"sha256": sha256, "paths": [r.path for r in group], "labels": sorted({str(r.label) for r in group})}
        for sha256, group in groups.items()
        if len(group) > 1
    ]
