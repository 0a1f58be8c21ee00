"""Tables: CSV, JSONL or Parquet with a row a picture (or a box), which name their pictures or hold their bytes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.formats.base import Format, Place, Sign
from autodl_ray.data.formats.box_values import boxes_of, flag, make_box
from autodl_ray.data.formats.reading import as_label, as_number
from autodl_ray.data.formats.table_pictures import Pictures, Source
from autodl_ray.data.formats.table_rows import (
    TABLE_SUFFIXES,
    find_columns,
    open_header,
    rows_of,
)
from autodl_ray.data.formats.table_write import write_parquet
from autodl_ray.data.formats.walk import (
    Finder,
    Tree,
    check_twins,
    split_named,
    split_of_file,
    start_listing,
    walk,
)
from autodl_ray.data.records import Box, Listing, Problem, Range, Record, Stamp, some
from autodl_ray.errors import DatasetError
from autodl_ray.images import IMAGE_SUFFIXES

__all__ = ["PARQUET", "TABLE", "read_table"]


@dataclass
class _Draft:
    """A picture whose rows are being gathered."""

    label: str | None
    split: Split | None
    group: str | None
    where: Range | None
    stamp: Stamp
    boxes: list[Box] | None = None


@dataclass
class _Reading:
    """What is known while the rows are read."""

    listing: Listing
    tree: Tree
    cache: Path
    drafts: dict[str, _Draft] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    finder: Finder = field(default_factory=lambda: Finder(()))

    def problem(self, where: str, reason: str) -> None:
        self.listing.problems.append(Problem(where, reason))


def read_table(path: Path, cache: Path) -> Listing:
    """List the pictures that a table names or holds.

    Args:
        path: A table, or a folder with tables (in it, or in its folder ``data``); several are read as one.
        cache: Folder where pictures that a Parquet file holds are kept, one after the other.

    Raises:
        DatasetError: There is no table that says what its pictures are, or it is damaged.
    """
    tree, sources = _open(path)
    listing = start_listing(tree, "table")
    reading = _Reading(listing, tree, cache, finder=Finder(tree.pictures))
    inside = [source.columns.image is not None for source in sources]
    if any(inside) and not all(inside):
        raise DatasetError("Some tables hold the bytes of their pictures and others do not.", seen=path)
    for source in sources:
        _read_source(source, reading)
    root = cache / "packs" if any(inside) else tree.root
    return _finish(reading, root, sources)


def _open(path: Path) -> tuple[Tree, list[Source]]:
    tree = walk(path.parent if path.is_file() else path)
    if path.is_file():
        names = [path.name]
    else:
        there = [name for name in tree.others if name.lower().endswith(TABLE_SUFFIXES)]
        names = sorted(name for name in there if "/" not in name or name.startswith("data/"))
    sources = [source for name in names if (source := _source(tree.root / name))]
    if not sources:
        raise DatasetError(
            "No table names pictures and their classes.",
            seen=f"{path}: {some(names) or 'no table'}",
            accepted="CSV, JSONL or Parquet with path (or image) and label (or xmin, ymin, xmax, ymax, or boxes)",
        )
    return tree, sources


def _source(path: Path) -> Source | None:
    if "submission" in path.name.casefold():  # an example of an answer, with made-up labels
        return None
    header = open_header(path)
    columns = find_columns(header)
    return Source(path, header, columns) if columns.fit else None


def _read_source(source: Source, reading: _Reading) -> None:
    name = source.path.relative_to(reading.tree.root).as_posix()
    pictures = Pictures(
        source, reading.tree, reading.finder, cache=reading.cache, taken=reading.drafts, problem=reading.problem
    )
    roles = source.columns
    # The struct that holds the bytes also holds the name: its column is asked for its path alone.
    nested = roles.image if roles.image in source.header.nested else None
    parts = [roles.path, roles.label, roles.split, roles.group, roles.boxes, roles.difficult, roles.crowd, nested]
    wanted = [column for column in (*parts, *(roles.corners or ())) if column]
    if roles.image and not wanted:
        raise DatasetError("A table holds pictures and nothing that is said about them.", seen=name)
    for number, row in rows_of(source.path, source.header, wanted):
        if isinstance(row, str):
            reading.problem(f"{name}:{number}", row)
        elif found := pictures.find(number, row):
            _add(source, reading, row, f"{name}:{number}", found)


def _add(
    source: Source, reading: _Reading, row: dict[str, Any], where: str, found: tuple[str, Range | None, Stamp]
) -> None:
    columns = source.columns
    path, place, stamp = found
    split, wrong = _split(source, row)
    if wrong:
        return reading.problem(where, wrong)
    label = _label(source, row)
    group = row.get(columns.group or "")
    draft = _Draft(label, split, as_label(group), place, stamp)
    if columns.corners or columns.boxes:
        draft.label = None
        draft.boxes, faults = _boxes(source, row, label)
        for fault in faults:
            reading.problem(where, fault)
        if not columns.corners and columns.label and label is not None and not draft.boxes:
            draft.label, draft.boxes = label, None  # a table that holds labels and has the column all the same
    if draft.label is None and draft.boxes is None:
        return reading.problem(where, "the row has no class")
    _merge(reading, path, draft, where, by_box=columns.corners is not None)


def _split(source: Source, row: dict[str, Any]) -> tuple[Split | None, str]:
    value = row.get(source.columns.split or "")
    if value is None:
        return split_of_file(source.path.name), ""
    split = split_named(str(value).strip())
    return split, "" if split else f"the split {str(value)[:40]!r} is not train, val or test"


def _label(source: Source, row: dict[str, Any]) -> str | None:
    column = source.columns.label or ""
    return _named_label(row.get(column), source.header.names.get(column, ()))


def _named_label(value: Any, names: tuple[str, ...]) -> str | None:
    if names and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        value = names[value]
    return as_label(value)


def _boxes(source: Source, row: dict[str, Any], label: str | None) -> tuple[list[Box], list[str]]:
    columns = source.columns
    if columns.corners is None:
        return boxes_of(row.get(columns.boxes or ""), label)
    cells = [row.get(side) for side in columns.corners]
    if all(cell is None for cell in cells):  # a row without a box says that there is nothing in the picture
        return [], []
    sides = [as_number(cell) for cell in cells]
    flags = (flag(row.get(columns.difficult or "")), flag(row.get(columns.crowd or "")))
    box = make_box(label, sides, flags)
    if box is None:
        return [], [f"the box cannot be read: {some(str(cell) for cell in (label, *cells))}"]
    return [box], []


def _merge(reading: _Reading, path: str, draft: _Draft, where: str, *, by_box: bool) -> None:
    known = reading.drafts.get(path)
    if known is None:
        reading.drafts[path] = draft
    elif known.split != draft.split:
        reading.problem(where, f"{path} is already in {known.split}, not {draft.split}")
    elif by_box and known.boxes is not None:
        known.boxes.extend(draft.boxes or [])
    elif (known.label, known.boxes) == (draft.label, draft.boxes):
        reading.counts["rows that say again what another says"] += 1
    else:
        reading.problem(where, f"{path} has another class in another row: {known.label}, not {draft.label}")


def _finish(reading: _Reading, root: Path, sources: list[Source]) -> Listing:
    listing = reading.listing
    tables = [source.path.relative_to(reading.tree.root).as_posix() for source in sources]
    reading.counts["pictures that no row names"] = len(reading.tree.pictures.keys() - reading.drafts.keys())
    reading.counts["files that are no pictures"] = len(reading.tree.others) - len(tables)
    unused = sorted({column for source in sources for column in source.columns.unused})
    if unused:
        listing.notes.append(f"columns that are not used: {some(unused)}")
    for source in sources:
        listing.notes.append(_explained(source))
    if not reading.drafts:
        raise DatasetError(
            "No row of the table gives a usable picture.",
            seen=some((f"{p.path}: {p.reason}" for p in listing.problems), 3) or some(tables),
            accepted="rows with a picture and its class",
        )
    records = [
        Record(path, d.label, None if d.boxes is None else tuple(d.boxes), d.split, d.group, d.where, d.stamp)
        for path, d in sorted(reading.drafts.items())
    ]
    check_twins({r.label for r in records if r.label} | {b.label for r in records for b in r.boxes or ()})
    return Listing(
        root=root,
        format="table",
        records=records,
        classes=_declared(sources),
        problems=listing.problems,
        passed_over={**listing.passed_over, **{what: n for what, n in reading.counts.items() if n}},
        notes=listing.notes,
        metadata=() if root != reading.tree.root else tuple(tables),
    )


def _declared(sources: list[Source]) -> tuple[str, ...]:
    for source in sources:
        names = source.header.names.get(source.columns.label or "", ())
        if names and all(as_label(name) for name in names):
            return tuple(str(as_label(name)) for name in names)
    return ()


def _explained(source: Source) -> str:
    c = source.columns
    parts = {"picture": c.image or c.path, "class": c.label, "split": c.split, "group": c.group, "boxes": c.boxes}
    said = [f"{role} = {column}" for role, column in parts.items() if column]
    said += [f"box = {', '.join(c.corners)}"] if c.corners else []
    return f"{source.path.name}: {'; '.join(said)}"


def _look(place: Place) -> Sign | None:
    if not place.is_file and place.named("data") and not place.ending(*TABLE_SUFFIXES):
        inner = _look_at(place.child(str(place.named("data"))))
        return inner and inner._replace(uses=frozenset({str(place.named("data"))}))
    return _look_at(place)


def _look_at(place: Place) -> Sign | None:
    for name in place.ending(*TABLE_SUFFIXES)[:20]:
        try:
            source = _source(place.file(name))
        except DatasetError:
            continue
        if source is not None:
            confidence = 0.95 if place.is_file or source.columns.image else 0.8
            pictures = [] if place.is_file or source.columns.image else place.ending(*IMAGE_SUFFIXES)
            folders = [f for f in place.folders if place.child(f).has_pictures(2)]
            uses = frozenset({*place.ending(*TABLE_SUFFIXES), *pictures, *folders})
            return Sign(_explained(source), confidence, uses)
    return None


TABLE = Format(
    name="table",
    doc="CSV, JSONL or Parquet with a row a picture or a box",
    look=_look,
    read=read_table,
    write=None,
    boxes=True,
    labels=True,
)

PARQUET = Format(
    name="parquet",
    doc="one Parquet file with the bytes of the pictures, read as a table",
    look=lambda place: None,
    read=read_table,
    write=write_parquet,
    boxes=True,
    labels=True,
)
