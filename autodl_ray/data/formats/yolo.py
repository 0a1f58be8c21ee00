"""YOLO: a text file a picture with one object a line, and data.yaml with the names of the classes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.formats.base import Format, Place, Sign
from autodl_ray.data.formats.reading import as_label, as_number, read_text
from autodl_ray.data.formats.sizes import picture_sizes
from autodl_ray.data.formats.walk import SPLIT_NAMES, Finder, Tree, check_twins, nfc, split_named, start_listing, walk
from autodl_ray.data.formats.yolo_write import write_yolo
from autodl_ray.data.records import Box, Listing, Problem, Record, some
from autodl_ray.errors import DatasetError
from autodl_ray.images import IMAGE_SUFFIXES

__all__ = ["YOLO", "read_yolo"]

_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAMES = ("classes.txt", "obj.names", "labels/classes.txt")
_MAX_LABELS = 16 * 2**20
_LINE = re.compile(r"\d+(\.0+)?(\s+[-+.\deE]+){4,}\s*")


@dataclass
class _Reading:
    """What is known while the files are read."""

    tree: Tree
    listing: Listing
    names: dict[int, str]
    declared: bool
    counts: Counter[str] = field(default_factory=Counter)

    def problem(self, where: str, reason: str) -> None:
        self.listing.problems.append(Problem(where, reason))


def read_yolo(path: Path, cache: Path | None = None) -> Listing:
    """List the pictures with their boxes, in pixels of the upright picture.

    A picture without a label file has nothing in it. An outline becomes the box around it. Splits are those of
    ``data.yaml`` (folders, or lists of pictures), else of folders named train, val and test.

    Args:
        path: ``data.yaml``, or the folder that it lies in, or one with ``images``, ``labels`` and ``classes.txt``.
        cache: Not needed.

    Raises:
        DatasetError: There are no label files, or ``data.yaml`` does not fit the folder.
    """
    tree = walk(path.parent if path.is_file() else path)
    config_name = path.name if path.is_file() else _config_name(tree)
    config = _read_config(tree.root / config_name) if config_name else {}
    names, source = _class_names(config, tree)
    reading = _Reading(tree, start_listing(tree, "yolo"), names, bool(names))
    splits = _splits(config, reading)
    chosen = sorted(splits if splits is not None else tree.pictures)
    labels = _label_files(chosen, tree)
    if not any(labels.values()):
        raise DatasetError(
            "No picture has a YOLO label file.",
            seen=f"{path}: {len(chosen)} pictures, {len(tree.others)} other files",
            accepted="labels/NAME.txt for images/NAME.jpg, or NAME.txt beside NAME.jpg",
        )
    sizes = picture_sizes([tree.root / name for name in chosen])
    for name, size in zip(chosen, sizes, strict=True):
        split = _split_by_folder(name) if splits is None else splits[name]
        _add(name, labels[name], size, split, reading)
    used = [name for name in (config_name, source, *labels.values()) if name]
    return _finish(reading, sorted(set(used)), chosen)


def _config_name(tree: Tree) -> str | None:
    named = next((name for name in _YAML if name in tree.others), None)
    if named:
        return named
    others = [n for n in sorted(tree.others) if "/" not in n and n.endswith((".yaml", ".yml"))]
    return next((name for name in others if _has_names(tree.root / name)), None)


def _has_names(path: Path) -> bool:
    try:
        return "names" in _read_config(path)
    except DatasetError:
        return False


def _read_config(path: Path) -> dict[str, Any]:
    text = read_text(path, 2**20)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise DatasetError("A YAML file repeats parts of itself by reference.", seen=path.name)
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DatasetError("A file is not YAML.", seen=f"{path.name}: {error}") from error
    if not isinstance(document, dict):
        raise DatasetError("A YOLO file has no keys.", seen=path.name, accepted="names, train, val")
    return document


def _class_names(config: dict[str, Any], tree: Tree) -> tuple[dict[int, str], str | None]:
    names = config.get("names")
    source = None
    if names is None:
        source = next((name for name in _NAMES if name in tree.others), None)
        names = [line for line in read_text(tree.root / source).splitlines() if line.strip()] if source else []
    pairs = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(pairs, dict) or not all(isinstance(k, int) and as_label(v) for k, v in pairs.items()):
        raise DatasetError("The class names are not usable.", seen=str(names)[:200], accepted="a list, or number: name")
    found = {key: str(as_label(value)) for key, value in pairs.items()}
    if len(set(found.values())) < len(found):
        raise DatasetError("A class name is there twice.", seen=some(found.values(), 20))
    check_twins(found.values())
    return found, source


def _splits(config: dict[str, Any], reading: _Reading) -> dict[str, Split] | None:
    """Return the split of each picture that ``data.yaml`` names; None when it names no folder or list."""
    given = {key: config[key] for key in SPLIT_NAMES if config.get(key)}
    splits: dict[str, Split] = {}
    finder = Finder(reading.tree.pictures)
    for key, value in given.items():
        for item in value if isinstance(value, list) else [value]:
            for name in _pictures(str(item), str(config.get("path") or ""), finder, reading):
                if splits.setdefault(name, SPLIT_NAMES[key]) != SPLIT_NAMES[key]:
                    reading.problem(name, f"the picture is in {splits[name]} and in {key}")
    if given and not splits:
        raise DatasetError(
            "data.yaml names no folder with pictures that is there.",
            seen="; ".join(f"{key}: {value}" for key, value in given.items()),
            accepted="folders relative to data.yaml",
        )
    return splits or None


def _pictures(item: str, base: str, finder: Finder, reading: _Reading) -> list[str]:
    tree = reading.tree
    for place in _candidates(item, base):
        if place in tree.others:
            lines = [line.strip() for line in read_text(tree.root / place).split("\n") if line.strip()]
            found = [finder.find(line, ("", place.rpartition("/")[0])) for line in lines]
            for line, name in zip(lines, found, strict=True):
                if name is None:
                    reading.problem(place, f"there is no picture {line[:200]!r}")
            return [name for name in found if name]
        names = [name for name in tree.pictures if place == "" or name.startswith(f"{place}/")]
        if names:
            return names
    reading.problem("data.yaml", f"there are no pictures at {item!r}")
    return []


def _candidates(item: str, base: str) -> list[str]:
    """Return where a path of data.yaml may lie below the folder: paths of other machines lose their beginning."""
    parts = [part for part in item.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    root = [part for part in base.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    return ["/".join([*root, *parts]), *ends] if parts else [""]


def _label_files(pictures: list[str], tree: Tree) -> dict[str, str | None]:
    """Return the label file of each picture: in ``labels`` where it lies in ``images``, else beside it."""
    texts = {nfc(name): name for name in tree.others if name.lower().endswith(".txt")}
    return {name: next((texts[t] for t in _label_names(nfc(name)) if t in texts), None) for name in pictures}


def _label_names(picture: str) -> list[str]:
    parts = picture.rsplit(".", 1)[0].split("/")
    found = []
    for position in range(len(parts) - 2, -1, -1):
        if parts[position].casefold() in ("images", "jpegimages"):
            found.append("/".join([*parts[:position], "labels", *parts[position + 1 :]]) + ".txt")
    return [*found, "/".join(parts) + ".txt"]


def _split_by_folder(name: str) -> Split | None:
    return next((split for part in name.split("/")[:-1] if (split := split_named(part))), None)


def _add(
    name: str, label_file: str | None, size: tuple[int, int] | None, split: Split | None, reading: _Reading
) -> None:
    if label_file is None:
        reading.counts["no label file"] += 1
    elif size is None:
        reading.problem(name, "The size of the picture is not known, so its boxes are not either.")
        return
    boxes = () if label_file is None or size is None else _read_boxes(label_file, size, reading)
    reading.listing.records.append(Record(name, None, boxes, split, None, None, reading.tree.pictures[name]))


def _read_boxes(label_file: str, size: tuple[int, int], reading: _Reading) -> tuple[Box, ...]:
    try:
        lines = read_text(reading.tree.root / label_file, _MAX_LABELS).splitlines()
    except DatasetError as error:
        reading.problem(label_file, error.what)
        return ()
    boxes = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        box = _box(line, size, reading)
        if isinstance(box, str):
            reading.problem(f"{label_file}:{number}", box)
        else:
            boxes.append(box)
    return tuple(boxes)


def _box(line: str, size: tuple[int, int], reading: _Reading) -> Box | str:
    first, *rest = line.split()
    key = as_number(first)
    values = [as_number(value) for value in rest]
    if key is None or key != int(key) or key < 0 or any(value is None for value in values):
        return f"no line of numbers: {line[:80]!r}"
    label = reading.names.get(int(key)) if reading.declared else str(int(key))
    if label is None:
        return f"class {int(key)} has no name"
    numbers = [value for value in values if value is not None]
    if len(numbers) == 4:
        return Box(label, *_corners(numbers, size))
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        reading.counts["outlines"] += 1
        xs, ys = numbers[0::2], numbers[1::2]
        return Box(label, min(xs) * size[0], min(ys) * size[1], max(xs) * size[0], max(ys) * size[1])
    return f"{len(numbers) + 1} numbers; a box has 5, an outline 7 or more"


def _corners(values: list[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    x, y, width, height = values
    return (
        (x - width / 2) * size[0],
        (y - height / 2) * size[1],
        (x + width / 2) * size[0],
        (y + height / 2) * size[1],
    )


def _finish(reading: _Reading, used: list[str], chosen: list[str]) -> Listing:
    listing, tree, counts = reading.listing, reading.tree, reading.counts
    if not reading.declared:
        listing.notes.append("no data.yaml or classes.txt names the classes: they are called by their numbers")
    if counts["no label file"]:
        listing.notes.append(f"{counts['no label file']} pictures have no label file: there is nothing in them")
    if counts["outlines"]:
        listing.notes.append(f"{counts['outlines']} outlines became the boxes around them")
    over = {
        "pictures that data.yaml does not name": len(tree.pictures) - len(chosen),
        "files that are no pictures": len(tree.others) - len(used),
    }
    listing.passed_over.update({what: count for what, count in over.items() if count})
    classes = tuple(reading.names[key] for key in sorted(reading.names))
    return replace(listing, classes=classes, metadata=tuple(used))


def _look(place: Place) -> Sign | None:
    if place.is_file:
        named = place.path.suffix.lower() in (".yaml", ".yml") and _has_names(place.path)
        return Sign(f"{place.path.name} has names", 0.9) if named else None
    config = next((f for f in place.ending(".yaml", ".yml") if _has_names(place.file(f))), None)
    folders = [n for n in place.folders if n.casefold() in ("images", "labels") or split_named(n)]
    if config:
        return Sign(f"{config} has names", 0.95, frozenset({config, *folders, *place.ending("classes.txt")}))
    images, labels = place.named("images"), place.named("labels")
    if images and labels and _shows_labels(place.child(labels)):
        uses = frozenset({images, labels, *place.ending("classes.txt", "obj.names")})
        return Sign(f"{images}/ and {labels}/ with lines of five numbers", 0.9, uses)
    parts = [n for n in place.folders if split_named(n) and place.child(n).named("labels")]
    if parts and all(_shows_labels(place.child(n).child("labels")) for n in parts):
        return Sign(f"images/ and labels/ in {some(parts)}", 0.9, frozenset(parts))
    if place.has_pictures() and _shows_labels(place):
        return Sign(
            "text files with lines of five numbers beside the pictures",
            0.8,
            frozenset(place.ending(".txt", *IMAGE_SUFFIXES)),
        )
    return None


def _shows_labels(place: Place, depth: int = 1) -> bool:
    for name in [n for n in place.ending(".txt") if n != "classes.txt"][:20]:
        try:
            with place.file(name).open("rb") as stream:
                line = stream.readline(4096).decode("utf-8", "replace")
        except OSError:
            continue
        if line.strip():
            return _LINE.fullmatch(line) is not None
    return depth > 0 and any(_shows_labels(place.child(name), depth - 1) for name in place.folders)


YOLO = Format(
    name="yolo",
    doc="YOLO: images/, labels/*.txt and data.yaml",
    look=_look,
    read=read_yolo,
    write=write_yolo,
    boxes=True,
    labels=False,
)
