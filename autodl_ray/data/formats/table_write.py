"""Writing a data set as one Parquet file that holds the bytes of its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from autodl_ray.data.formats.base import Target
from autodl_ray.data.formats.names import write_file
from autodl_ray.data.records import Listing, Record
from autodl_ray.errors import DatasetError, StoreError

__all__ = ["write_parquet"]

_ROWS = 64  # a row group: a few MB of pictures


def write_parquet(listing: Listing, target: Target) -> None:
    """Write ``data.parquet``: path, image (struct of bytes and path), label, split, group, boxes.

    Raises:
        DatasetError: A picture cannot be read.
        StoreError: The file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    box = {"label": pa.string(), "difficult": pa.bool_(), "crowd": pa.bool_()}
    box |= {side: pa.float64() for side in ("xmin", "ymin", "xmax", "ymax")}
    schema = pa.schema(
        {
            "path": pa.string(),
            "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            "label": pa.string(),
            "split": pa.string(),
            "group": pa.string(),
            "boxes": pa.list_(pa.struct(box)),
        }
    )
    if listing.task == "classification":
        schema = schema.remove(schema.get_field_index("boxes"))
    try:
        with pq.ParquetWriter(target.folder / "data.parquet", schema, compression="zstd") as file:
            for records in _groups(iter(listing.records)):
                rows = [_row(record, target) for record in records]
                file.write_table(pa.Table.from_pylist(rows, schema=schema))
    except OSError as error:
        raise StoreError("A file cannot be written.", seen=f"data.parquet: {error}") from error
    if listing.classes:
        write_file(target.folder / "classes.txt", "".join(f"{name}\n" for name in listing.classes))


def _groups(records: Iterator[Record]) -> Iterator[list[Record]]:
    while group := list(islice(records, _ROWS)):
        yield group


def _row(record: Record, target: Target) -> dict[str, Any]:
    try:
        data = target.read(record)
    except OSError as error:
        raise DatasetError("A picture cannot be read.", seen=f"{record.path}: {error.strerror}") from error
    target.done()
    return {
        "path": record.path,
        "image": {"bytes": data, "path": record.path},
        "label": record.label,
        "split": record.split,
        "group": record.group,
        "boxes": None if record.boxes is None else [box._asdict() for box in record.boxes],
    }
