"""The files of a data set that are no pictures but describe them, such as annotations: kept beside a version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autodl_ray.artifacts import Artifact
from autodl_ray.data.facts.reading import Keeper, read_pictures
from autodl_ray.data.records import Listing, Record
from autodl_ray.data.versions.index import IndexRow
from autodl_ray.data.versions.keeping import FINDINGS
from autodl_ray.errors import DatasetError

__all__ = ["keep_side_files", "side_rows"]

_MOST_BYTES = 256 * 2**20


def keep_side_files(listing: Listing, keep: Keeper) -> list[dict[str, Any]]:
    """Copy the files that hold annotations, so that a checkout is whole; files that hold pictures are not copied.

    They do not count for the id of a version: what they say does.

    Returns:
        Path, sha256 and size of each.

    Raises:
        DatasetError: One cannot be read.
    """
    holding = {record.where.file for record in listing.records if record.where is not None}
    records = []
    for path in sorted(set(listing.metadata) - holding):
        file = listing.root / path
        if file.is_file() and file.stat().st_size <= _MOST_BYTES:
            records.append(Record(path, stamp=(file.stat().st_size, 0, 0, 0)))
    side = Listing(listing.root, "side files", records)
    found = []
    for reading in read_pictures(side, range(len(records)), decode=False):
        path = records[reading.position].path
        if reading.facts.problem:
            raise DatasetError("A file of the data set cannot be read.", seen=f"{path}: {reading.facts.problem}")
        if not keep.has(reading.facts.sha256):
            keep.add(reading.facts.sha256, reading.data)
        found.append({"path": path, "sha256": reading.facts.sha256, "bytes": reading.facts.bytes})
    return found


def side_rows(artifact: Artifact) -> list[IndexRow]:
    """Return the side files of a version as rows of no label and no split."""
    document: Mapping[str, Any] = json.loads(artifact.file(FINDINGS).read_text(encoding="utf-8"))
    return [
        IndexRow(file["path"], None, None, None, None, file["sha256"], file["bytes"])
        for file in document.get("side_files", ())
    ]
