"""Writing a data set in the format of COCO."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autodl_ray.data.formats.base import Target
from autodl_ray.data.formats.box_values import add_extent
from autodl_ray.data.formats.names import plain_names, write_file, write_pictures
from autodl_ray.data.formats.sizes import picture_size
from autodl_ray.data.records import Listing, Record

__all__ = ["extent_of", "write_coco"]


def write_coco(listing: Listing, target: Target) -> None:
    """Write ``images/SPLIT`` and ``annotations/instances_SPLIT.json``; flags and groups are keys that others ignore.

    Raises:
        DatasetError: A picture cannot be read.
        StoreError: A file cannot be written.
    """
    names = plain_names(listing)
    paths = [f"images/{r.split}/{n}" if r.split else f"images/{n}" for r, n in zip(listing.records, names, strict=True)]
    write_pictures(listing, paths, target)
    labels = listing.classes or tuple(sorted({b.label for r in listing.records for b in r.boxes or ()}))
    ids = {label: position for position, label in enumerate(labels, start=1)}
    for split in sorted({record.split or "all" for record in listing.records}):
        document: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
        document["categories"] = [{"id": number, "name": label} for label, number in ids.items()]
        for record, name, path in zip(listing.records, names, paths, strict=True):
            if (record.split or "all") == split:
                _describe(record, name, target.folder / path, ids, document)
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
        write_file(target.folder / "annotations" / f"instances_{split}.json", text)


def _describe(
    record: Record, name: str, file: Path, ids: Mapping[str, int], document: dict[str, list[dict[str, Any]]]
) -> None:
    image: dict[str, Any] = {"id": len(document["images"]) + 1, "file_name": name}
    size = picture_size(file)
    if size is not None:
        image |= {"width": size[0], "height": size[1]}
    if record.group is not None:
        image["group"] = record.group
    document["images"].append(image)
    for box in record.boxes or ():
        width, height = extent_of(box.xmin, box.xmax), extent_of(box.ymin, box.ymax)
        row = {
            "id": len(document["annotations"]) + 1,
            "image_id": image["id"],
            "category_id": ids[box.label],
            "bbox": [box.xmin, box.ymin, width, height],
            "area": width * height,
            "iscrowd": int(box.crowd),
        }
        document["annotations"].append({**row, "difficult": 1} if box.difficult else row)


def extent_of(low: float, high: float) -> float:
    """Return the width from which :func:`_end` makes ``high`` again; for few numbers, to the last bit but one."""
    width = high - low
    near = (width, round(width, 9), math.nextafter(width, math.inf), math.nextafter(width, -math.inf))
    return next((candidate for candidate in near if add_extent(low, candidate) == high), width)
