"""COCO: JSON files with the tables images, annotations and categories, beside folders of pictures."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.formats.base import Format, Place, Sign
from autodl_ray.data.formats.box_values import add_extent, flag
from autodl_ray.data.formats.coco_write import write_coco
from autodl_ray.data.formats.reading import MAX_JSON, MAX_RECORDS, as_label, as_number, read_json
from autodl_ray.data.formats.walk import Finder, Tree, check_twins, split_named, split_of_file, start_listing, walk
from autodl_ray.data.records import Box, Listing, Problem, Record, some
from autodl_ray.errors import DatasetError

__all__ = ["COCO", "read_coco"]

_KEYS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
_GLANCE = 2**20


@dataclass
class _Reading:
    """What is known while the files are read."""

    tree: Tree
    listing: Listing
    finder: Finder
    records: dict[str, Record] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def problem(self, where: str, reason: str) -> None:
        self.listing.problems.append(Problem(where, reason))


def read_coco(path: Path, cache: Path | None = None) -> Listing:
    """List the pictures of COCO files (detection), with their boxes; outlines and key points are not read.

    A file's split is the one in its name (``instances_train2017.json``) or its folder (``valid/…``). A picture
    without annotations has no boxes: that says that there is nothing in it. Classes keep the order of the ids.

    Args:
        path: A JSON file, or a folder with such files in it, in ``annotations`` or in split folders.
        cache: Not needed.

    Raises:
        DatasetError: There is no such file, or it is damaged, or names no picture that is there.
    """
    tree = walk(path.parent if path.is_file() else path)
    files = [path.name] if path.is_file() else [n for n in sorted(tree.others) if _is_coco(tree.root / n)]
    if path.is_file() and not tree.pictures and path.parent.name.casefold() == "annotations":
        tree = walk(path.parent.parent)
        files = [f"{path.parent.name}/{path.name}"]
    reading = _Reading(tree, start_listing(tree, "coco"), Finder(tree.pictures))
    for name in files:
        _read_file(name, reading)
    if not reading.records:
        raise DatasetError(
            "No COCO file names a picture that is there.",
            seen=f"{path}: {some(files) or 'no COCO file'}; "
            + some((f"{p.path}: {p.reason}" for p in reading.listing.problems), 3),
            accepted="annotations/instances_*.json beside the folders of pictures",
        )
    return _finish(reading, files)


def _is_coco(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    try:
        with path.open("rb") as stream:
            head = stream.read(_GLANCE)
            stream.seek(max(len(head), stream.seek(0, 2) - _GLANCE))
            keys = {*_KEYS.findall(head), *_KEYS.findall(stream.read())}
    except OSError:
        return False
    return len(keys) >= 2


def _finish(reading: _Reading, files: list[str]) -> Listing:
    tree, listing = reading.tree, reading.listing
    records = [reading.records[path] for path in sorted(reading.records)]
    check_twins(reading.classes)
    reading.counts["pictures that no COCO file names"] = len(tree.pictures.keys() - reading.records.keys())
    reading.counts["files that are no pictures"] = len(tree.others) - len(files)
    empty = sum(not record.boxes for record in records)
    if empty:
        listing.notes.append(f"{empty} pictures have no annotation: there is nothing in them")
    return Listing(
        root=tree.root,
        format="coco",
        records=records,
        classes=tuple(reading.classes),
        problems=listing.problems,
        passed_over={**listing.passed_over, **{what: n for what, n in reading.counts.items() if n}},
        notes=listing.notes,
        metadata=tuple(files),
    )


def _read_file(name: str, reading: _Reading) -> None:
    document = read_json(reading.tree.root / name, MAX_JSON)
    if not isinstance(document, dict):
        raise DatasetError("A COCO file is no JSON object.", seen=name)
    images, annotations, categories = (_rows(document, key, name) for key in ("images", "annotations", "categories"))
    if not images:
        raise DatasetError(
            "A COCO file names no pictures.", seen=name, accepted='"images": [{"id": …, "file_name": …}]'
        )
    names = _names(categories, name, reading)
    boxes = _boxes(annotations, names, name, reading)
    split = _split(name)
    folders = _folders(name)
    seen: set[Any] = set()
    for image in images:
        key = _key(image.get("id"))
        if key in seen or key is None:
            reading.problem(name, f"a picture without an id of its own: {str(image)[:80]}")
            continue
        seen.add(key)
        _add(image, tuple(boxes.get(key, ())), split, folders, name, reading)
    lost = sum(len(found) for key, found in boxes.items() if key not in seen)
    if lost:
        reading.problem(name, f"{lost} annotations of pictures that the file does not name")


def _rows(document: dict[str, Any], key: str, name: str) -> list[dict[str, Any]]:
    rows = document.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatasetError("A table of a COCO file is no list of objects.", seen=f"{name}: {key}")
    if len(rows) > MAX_RECORDS:
        raise DatasetError("A COCO file has too many rows.", seen=f"{name}: {key}", accepted=f"at most {MAX_RECORDS:,}")
    return rows


def _key(value: Any) -> int | str | None:
    return value if isinstance(value, int | str) else None


def _names(categories: Iterable[Mapping[str, Any]], name: str, reading: _Reading) -> dict[int | str, str]:
    """Return the class of each category id; ids need not be contiguous."""
    names: dict[int | str, str] = {}
    for category in categories:
        key, label = _key(category.get("id")), as_label(category.get("name"))
        if key is None or label is None or key in names:
            reading.problem(name, f"a category without an id or name of its own: {str(category)[:80]}")
        else:
            names[key] = label
    order = sorted(names, key=lambda key: (isinstance(key, str), key))
    reading.classes.extend(label for key in order if (label := names[key]) not in reading.classes)
    return names


def _boxes(
    annotations: Iterable[Mapping[str, Any]], names: Mapping[int | str, str], name: str, reading: _Reading
) -> dict[int | str | None, list[Box]]:
    boxes: dict[int | str | None, list[Box]] = defaultdict(list)
    for row in annotations:
        category = _key(row.get("category_id"))
        label = None if category is None else names.get(category)
        corners = _corners(row.get("bbox"))
        reading.counts["outlines of objects"] += bool(row.get("segmentation"))
        reading.counts["key points of objects"] += bool(row.get("keypoints"))
        if label is None or corners is None:
            what = "of no category that is declared" if label is None else "without a box of four numbers"
            reading.problem(name, f"annotation {row.get('id')} {what}"[:200])
        else:
            crowd, difficult = flag(row.get("iscrowd")), flag(row.get("difficult"))
            boxes[_key(row.get("image_id"))].append(Box(label, *corners, difficult, crowd))
    return boxes


def _corners(bbox: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    x, y, width, height = (as_number(side) for side in bbox)
    if x is None or y is None or width is None or height is None:
        return None
    corners = (x, y, add_extent(x, width), add_extent(y, height))
    return corners if all(map(math.isfinite, corners)) else None


def _split(name: str) -> Split | None:
    """Return the split in the name of a file, else that of its folder."""
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    words = [word for word in re.split(r"[_\W]+", stem) if word]
    found = next((split for word in reversed(words) if (split := split_named(word))), None)
    folder = name.split("/")[-2] if "/" in name else ""
    return found or split_named(folder) or split_of_file(stem)


def _folders(name: str) -> list[str]:
    """Return where the pictures of a file may lie, the likeliest first."""
    base, _, last = name.rpartition("/")
    top = base.rpartition("/")[0] if base.rsplit("/", 1)[-1].casefold() == "annotations" else base
    part = last.rsplit(".", 1)[0].rsplit("_", 1)[-1]
    inside = [f"images/{part}", part, "images", "", f"data/{part}", "data"]
    return [f"{top}/{folder}".strip("/") for folder in inside] + [base]


def _add(
    image: Mapping[str, Any],
    boxes: tuple[Box, ...],
    split: Split | None,
    folders: list[str],
    name: str,
    reading: _Reading,
) -> None:
    wanted = image.get("file_name")
    if not isinstance(wanted, str) or not wanted:
        reading.problem(name, f"picture {image.get('id')} has no file_name"[:200])
        return
    path = reading.finder.find(wanted, folders) if ".." not in wanted.split("/") else None
    if path is None:
        reading.problem(wanted[:300], f"the picture of {name} is not there")
        return
    known = reading.records.get(path)
    if known is not None and known.split != split:
        reading.problem(path, f"the picture is in {known.split} and in {split}")
        return
    group = as_label(image.get("group"))
    boxes = boxes if known is None else (known.boxes or ()) + boxes
    reading.records[path] = Record(path, None, boxes, split, group, None, reading.tree.pictures[path])


def _look(place: Place) -> Sign | None:
    if place.is_file:
        found = _is_coco(place.path)
        return Sign(f"{place.path.name} has images and annotations", 0.95) if found else None
    folder = place.named("annotations")
    inner = place.child(folder) if folder else None
    files = [f for f in inner.ending(".json") if _is_coco(inner.file(f))] if inner else []
    if files:
        uses = {name for name in place.folders if name == folder or place.child(name).has_pictures(2)}
        return Sign(f"{folder}/ with {some(files, 3)}", 0.95, frozenset(uses))
    files = [f for f in place.ending(".json") if _is_coco(place.file(f))]
    if files:
        uses = {*files, *(name for name in place.folders if place.child(name).has_pictures(2))}
        return Sign(f"{some(files, 3)} with images and annotations", 0.95, frozenset(uses))
    parts = [name for name in place.folders if split_named(name)]
    inside = [name for name in parts if any(_is_coco(place.child(name).file(f)) for f in place.child(name).files)]
    return Sign(f"COCO files beside the pictures in {some(inside)}", 0.95, frozenset(inside)) if inside else None


COCO = Format(
    name="coco",
    doc="COCO detection: annotations/instances_*.json beside the pictures",
    look=_look,
    read=read_coco,
    write=write_coco,
    boxes=True,
    labels=False,
)
