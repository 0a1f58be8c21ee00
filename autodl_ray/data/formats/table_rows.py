"""Rows of CSV, JSONL and Parquet files, and what their columns mean."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autodl_ray.data.formats.reading import MAX_RECORDS, parse_json, read_lines
from autodl_ray.errors import DatasetError
from autodl_ray.images import IMAGE_SUFFIXES

__all__ = ["PARQUET_BUFFER", "TABLE_SUFFIXES", "Columns", "Header", "find_columns", "open_header", "rows_of"]

PARQUET_BUFFER = 2**20
"""Bytes that are read at once; without it a column of a whole row group is in memory."""
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_NAMES = {
    "path": "path image_path img_path filepath file_path filename file_name file image img image_id image_name id",
    "label": "label class target category class_name label_name classname labels",
    "split": "split set subset partition",
    "group": "group group_id patient patient_id site subject subject_id",
    "boxes": "boxes bboxes bbox objects annotations",
    "xmin": "xmin x_min x1 left",
    "ymin": "ymin y_min y1 top",
    "xmax": "xmax x_max x2 right",
    "ymax": "ymax y_max y2 bottom",
    "difficult": "difficult",
    "crowd": "crowd iscrowd",
    "bytes": "bytes image_bytes data content jpg jpeg png",
}


@dataclass(frozen=True)
class Header:
    """The columns of a file.

    Attributes:
        columns: Their names.
        binary: Those that hold bytes.
        nested: Those that hold bytes in a struct with ``bytes`` and ``path``.
        given: Whether the file names them; else they were guessed from its first line.
        delimiter: Of a CSV file.
        names: Class names by column, where the file declares them (Hugging Face's ``ClassLabel``).
    """

    columns: tuple[str, ...]
    binary: frozenset[str] = frozenset()
    nested: frozenset[str] = frozenset()
    given: bool = True
    delimiter: str = ","
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Columns:
    """Which column says what; None: no such column.

    Attributes:
        path: Path or name of the picture.
        image: Bytes of the picture.
        label: Class.
        split: train, val or test.
        group: What must stay together.
        boxes: List of boxes of the picture.
        corners: xmin, ymin, xmax, ymax of one box a row.
        difficult: Flag of that box.
        crowd: Flag of that box.
        unused: The others.
    """

    path: str | None
    image: str | None
    label: str | None
    split: str | None
    group: str | None
    boxes: str | None
    corners: tuple[str, str, str, str] | None
    difficult: str | None
    crowd: str | None
    unused: tuple[str, ...]

    @property
    def fit(self) -> bool:
        """Whether there is a picture and something said about it."""
        return bool((self.path or self.image) and (self.label or self.boxes or self.corners))


def find_columns(header: Header) -> Columns:
    """Say what the columns of a file mean, by their names and types."""
    by_name = {name.strip().casefold().replace(" ", "_").replace("-", "_"): name for name in reversed(header.columns)}
    holds_bytes = header.binary | header.nested
    image = next((name for name in header.columns if name in holds_bytes), None)

    def column(role: str) -> str | None:
        found = (by_name[name] for name in _NAMES[role].split() if name in by_name)
        return next((name for name in found if name not in holds_bytes), None)

    corners = tuple(column(side) for side in ("xmin", "ymin", "xmax", "ymax"))
    roles = {role: column(role) for role in ("path", "label", "split", "group", "boxes", "difficult", "crowd")}
    used = {*roles.values(), *corners, image}
    return Columns(
        image=image,
        corners=corners if all(corners) else None,  # type: ignore[arg-type]
        unused=tuple(name for name in header.columns if name not in used),
        **roles,
    )


def open_header(path: Path) -> Header:
    """Read the names and types of the columns.

    Raises:
        DatasetError: The file is empty, damaged or of no kind that is known.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_header(path)
    first = next(read_lines(path), "")
    if not first.strip():
        raise DatasetError("A table is empty.", seen=path.name)
    if suffix in (".jsonl", ".ndjson"):
        row = parse_json(first, path.name)
        if not isinstance(row, dict):
            raise DatasetError("A line of a table is no JSON object.", seen=f"{path.name}: {first[:60]!r}")
        return Header(tuple(row))
    delimiter = "\t" if suffix == ".tsv" else max(",;\t", key=first.count)
    cells = _cells(first, delimiter, path)
    if cells[0].lower().endswith(IMAGE_SUFFIXES) and len(cells) in (2, 6):
        names = ("path", "label") if len(cells) == 2 else ("path", "xmin", "ymin", "xmax", "ymax", "label")
        return Header(names, given=False, delimiter=delimiter)
    return Header(tuple(cells), delimiter=delimiter)


def _cells(line: str, delimiter: str, path: Path) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error as error:
        raise DatasetError("A table cannot be read.", seen=f"{path.name}: {error}") from error


def rows_of(path: Path, header: Header, columns: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield (line number, row) of a file; instead of a row that cannot be used a text that says why.

    Args:
        path: The file.
        header: Of the file.
        columns: Those that are wanted; the bytes of pictures are not among them.

    Raises:
        DatasetError: The file is damaged, or too large.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        rows: Iterator[tuple[int, dict[str, Any] | str]] = _parquet_rows(path, header, list(columns))
    elif suffix in (".jsonl", ".ndjson"):
        rows = _json_rows(path)
    else:
        rows = _csv_rows(path, header)
    for count, row in enumerate(rows):
        if count >= MAX_RECORDS:
            raise DatasetError("A table has too many rows.", seen=path.name, accepted=f"at most {MAX_RECORDS:,}")
        yield row


def _csv_rows(path: Path, header: Header) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.reader(read_lines(path), delimiter=header.delimiter)
    try:
        if header.given:
            next(reader, None)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header.columns):
                yield reader.line_num, f"{len(cells)} cells instead of {len(header.columns)}"
            else:
                row = zip(header.columns, (cell if cell != "" else None for cell in cells), strict=True)
                yield reader.line_num, dict(row)
    except csv.Error as error:
        raise DatasetError("A table cannot be read.", seen=f"{path.name}, line {reader.line_num}: {error}") from error


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, path.name)
        except DatasetError:
            yield number, "no JSON"
            continue
        yield number, row if isinstance(row, dict) else "no JSON object"


def _parquet_header(path: Path) -> Header:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError("A Parquet file cannot be read.", seen=f"{path.name}: {error}") from error

    def is_binary(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    def is_nested(kind: Any) -> bool:
        return bool(pa.types.is_struct(kind)) and any(f.name == "bytes" and is_binary(f.type) for f in kind)

    return Header(
        tuple(schema.names),
        frozenset(f.name for f in schema if is_binary(f.type)),
        frozenset(f.name for f in schema if is_nested(f.type)),
        names=_declared_names(schema.metadata or {}),
    )


def _declared_names(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            column: tuple(str(name) for name in feature["names"])
            for column, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _parquet_rows(path: Path, header: Header, columns: list[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = [f"{name}.path" if name in header.nested else name for name in columns]
    number = 0
    try:
        with pq.ParquetFile(path, buffer_size=PARQUET_BUFFER, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=4096, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DatasetError("A Parquet file cannot be read.", seen=f"{path.name}: {error}") from error
