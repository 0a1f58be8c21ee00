"""The rows of a version, the file that keeps them, and the one hash that names the version."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.columns import (
    digest_column,
    digests_of,
    flag_column,
    list_column,
    number_column,
    numbers_of,
    text_column,
)
from autodl_ray.data.records import Box, Range, Record
from autodl_ray.errors import BundleError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["INDEX", "IndexRow", "class_names", "index_row", "read_index", "version_hash", "write_index"]

INDEX = "index.parquet"
_HASH_SCHEMA = "autodl data version 1"
_SPLITS = get_args(Split)
_TEXTS = ("path", "label", "split", "group", "problem")
_NUMBERS = ("bytes", "width", "height", "offset", "length")


class IndexRow(NamedTuple):
    """A picture of a version.

    Attributes:
        path: Its name within the data set, in Unicode form NFC, with ``/``.
        label: Name of its class; None where it has boxes, or no label.
        boxes: Its objects, in pixels; None where the data set has none.
        split: Where it belongs; None: in no split.
        group: Of what must stay together.
        sha256: Of its bytes, 64 hex digits; empty when they could not be read.
        bytes: How many they are.
        width: Of the upright picture, in pixels; 0 when it was not decoded.
        height: Of the upright picture, in pixels; 0 when it was not decoded.
        problem: Why it is no usable picture; empty when it is one, or when it was not decoded.
        where: Its bytes below the root; None: the whole file ``path``.
    """

    path: str
    label: str | None
    boxes: tuple[Box, ...] | None
    split: Split | None
    group: str | None
    sha256: str
    bytes: int
    width: int = 0
    height: int = 0
    problem: str = ""
    where: Range | None = None


def index_row(record: Record, *, split: Split | None, facts: Any) -> IndexRow:
    """Put a record, its split and its :class:`~autodl_ray.data.facts.reading.PictureFacts` together."""
    path = unicodedata.normalize("NFC", record.path)
    where = record.where if record.where is not None or path == record.path else Range(record.path)
    return IndexRow(
        path,
        record.label,
        record.boxes,
        split,
        record.group,
        facts.sha256,
        facts.bytes,
        facts.width,
        facts.height,
        facts.problem,
        where,
    )


def class_names(rows: Iterable[Any], declared: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the declared class names in their order, then those that rows (or records) use beside them, sorted."""
    used: set[str] = set()
    for row in rows:
        if row.label is not None:
            used.add(row.label)
        if row.boxes:
            used.update(box.label for box in row.boxes)
    return (*declared, *sorted(used.difference(declared)))


def version_hash(rows: Iterable[IndexRow], classes: Sequence[str]) -> str:
    """Return the 64 hex digits that name a version.

    They are the sha256 of the class names in order and, sorted by path, of each picture's path, label, boxes, split
    and sha256. Any byte, label, box or split that differs gives another hash; the order of files, their times, their
    place, the machine and what decoding found do not matter.
    """
    content = sorted([row.path, row.label, _box_values(row.boxes), row.split, row.sha256] for row in rows)
    text = json.dumps([_HASH_SCHEMA, list(classes), content], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _box_values(boxes: tuple[Box, ...] | None) -> list[list[Any]] | None:
    if boxes is None:
        return None
    # 0.0 is added so that -0.0, 0 and 0.0 are one number; ints and floats of equal value hash alike.
    return [[b.label, *(float(v) + 0.0 for v in b[1:5]), bool(b.difficult), bool(b.crowd)] for b in boxes]


def write_index(path: Path, rows: Sequence[IndexRow]) -> None:
    """Write the rows as Parquet, sorted by path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = sorted(rows, key=lambda row: row.path)
    places = [row.where for row in ordered]
    columns = {name: text_column([getattr(row, name) for row in ordered]) for name in _TEXTS}
    columns["sha256"] = digest_column([row.sha256 for row in ordered])
    columns["bytes"] = number_column([row.bytes for row in ordered])
    columns["width"] = number_column([row.width for row in ordered], "int32")
    columns["height"] = number_column([row.height for row in ordered], "int32")
    columns["file"] = text_column([None if place is None else place.file for place in places])
    columns["offset"] = number_column([0 if place is None else place.offset for place in places])
    columns["length"] = number_column([-1 if place is None else place.length for place in places])
    columns["boxes"] = _box_column(ordered)
    pq.write_table(pa.Table.from_arrays(list(columns.values()), names=list(columns)), path, compression="zstd")


def _box_column(rows: Sequence[IndexRow]) -> pa.Array:
    boxes = [box for row in rows for box in row.boxes or ()]
    fields = {"label": text_column([box.label for box in boxes])}
    fields |= {name: number_column([getattr(box, name) for box in boxes], "float64") for name in Box._fields[1:5]}
    fields |= {name: flag_column([getattr(box, name) for box in boxes]) for name in Box._fields[5:]}
    return list_column([None if row.boxes is None else len(row.boxes) for row in rows], fields)


def read_index(path: Path) -> list[IndexRow]:
    """Read the rows, sorted by path.

    Raises:
        BundleError: The file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()  # unlike pq.read_table it does not import pandas
        texts = {name: table.column(name).to_pylist() for name in (*_TEXTS, "file")}
        numbers = {name: numbers_of(table, name).tolist() for name in _NUMBERS}
        boxes = table.column("boxes").to_pylist()
        digests = digests_of(table, "sha256")
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise BundleError("The index of the data set is damaged.", seen=f"{path}: {error}") from error
    places = zip(texts["file"], numbers["offset"], numbers["length"], strict=True)
    columns = (
        texts["path"],
        texts["label"],
        [None if found is None else tuple(Box(**box) for box in found) for found in boxes],
        [_split(text, path) for text in texts["split"]],
        texts["group"],
        digests,
        numbers["bytes"],
        numbers["width"],
        numbers["height"],
        texts["problem"],
        [None if file is None else Range(file, offset, length) for file, offset, length in places],
    )
    return list(map(IndexRow._make, zip(*columns, strict=True)))


def _split(text: str | None, path: Path) -> Split | None:
    if text is not None and text not in _SPLITS:
        raise BundleError("The index of the data set is damaged.", seen=f"{path}: {text!r} is no split")
    return cast("Split | None", text)
