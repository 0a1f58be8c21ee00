"""Writing a data set in the format of YOLO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from autodl_ray.data.formats.base import Target
from autodl_ray.data.formats.names import plain_names, split_of, write_file, write_pictures
from autodl_ray.data.formats.sizes import picture_size
from autodl_ray.data.records import Box, Listing
from autodl_ray.errors import DatasetError

__all__ = ["write_yolo"]


def write_yolo(listing: Listing, target: Target) -> None:
    """Write ``images/SPLIT``, ``labels/SPLIT`` and ``data.yaml``.

    Raises:
        DatasetError: A picture cannot be read, does not say its size, or is in no split while others are.
        StoreError: A file cannot be written.
    """
    _tell(listing, target)
    names = plain_names(listing, stems=True)
    folders = [split_of(record, listing) or "" for record in listing.records]
    paths = [f"{folder}/{name}".strip("/") for folder, name in zip(folders, names, strict=True)]
    write_pictures(listing, [f"images/{path}" for path in paths], target)
    labels = listing.classes or tuple(sorted({b.label for r in listing.records for b in r.boxes or ()}))
    ids = {label: position for position, label in enumerate(labels)}
    made: set[Path] = set()
    for record, path in zip(listing.records, paths, strict=True):
        size = picture_size(target.folder / "images" / path)
        if size is None:
            raise DatasetError("YOLO needs the size of each picture, and one does not say.", seen=record.path)
        lines = "".join(_line(box, ids, size) for box in record.boxes or ())
        write_file(target.folder / "labels" / f"{path.rsplit('.', 1)[0]}.txt", lines, made)
    config: dict[str, Any] = {"path": "."}
    splits = sorted({folder for folder in folders if folder}, key=("train", "val", "test").index)
    config |= {split: f"images/{split}" for split in splits}
    config["names"] = dict(enumerate(labels))
    write_file(target.folder / "data.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def _tell(listing: Listing, target: Target) -> None:
    boxes = [box for record in listing.records for box in record.boxes or ()]
    lost = {
        "difficult flags": any(box.difficult for box in boxes),
        "crowd flags": any(box.crowd for box in boxes),
        "groups (what must stay together)": any(record.group is not None for record in listing.records),
    }
    target.notes.extend(f"YOLO cannot hold {what}: they are left out" for what, there in lost.items() if there)


def _line(box: Box, ids: dict[str, int], size: tuple[int, int]) -> str:
    width, height = size
    values = (
        (box.xmin + box.xmax) / 2 / width,
        (box.ymin + box.ymax) / 2 / height,
        (box.xmax - box.xmin) / width,
        (box.ymax - box.ymin) / height,
    )
    return f"{ids[box.label]} " + " ".join(repr(float(value)) for value in values) + "\n"
