"""ImageFolder: one folder a class, below train/val/test where the data set is divided."""

from __future__ import annotations

from pathlib import Path

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.formats.base import Format, Place, Sign, Target
from autodl_ray.data.formats.names import clean_labels, plain_names, write_pictures
from autodl_ray.data.formats.walk import SKIPPED_FOLDERS, SPLIT_NAMES, Tree, check_twins, nfc, start_listing, walk
from autodl_ray.data.records import Listing, Record, some
from autodl_ray.errors import DatasetError
from autodl_ray.images import IMAGE_SUFFIXES

__all__ = ["IMAGEFOLDER", "read_imagefolder"]


def read_imagefolder(path: str | Path, cache: Path | None = None) -> Listing:
    """List the pictures of a folder, with their classes and, where it is divided, their splits.

    Hidden files and folders are passed over; folders below a class belong to the class.

    Args:
        path: The folder. Its classes are its folders, or those of its ``train``, ``val`` (or ``valid``,
            ``validation``) and ``test`` folders.
        cache: Not needed.

    Raises:
        DatasetError: The folder is missing, empty or no folder; it has fewer than two classes, or two whose names
            differ only by case or Unicode form; a link leads out of it; split and class folders are mixed.
    """
    tree = walk(path)
    listing = start_listing(tree, "imagefolder")
    inside = sorted(name for name in tree.pictures if "/" in name)
    outside = sorted(name for name in tree.pictures if "/" not in name)
    if not inside:
        raise DatasetError(
            "The folder holds no pictures in class folders.",
            seen=f"{path}: {len(outside)} pictures outside a class folder, {len(tree.others)} other files",
            accepted=f"one folder a class, with {', '.join(IMAGE_SUFFIXES)} files",
        )
    splits = _splits(inside)
    if splits:
        outside += [name for name in inside if name.count("/") == 1]
        inside = [name for name in inside if name.count("/") > 1]
    listing.records.extend(_record(name, splits, tree) for name in inside)
    _check_classes(listing, depth=1 if splits else 0)
    _tell(listing, tree, outside, depth=1 if splits else 0)
    return listing


def _record(name: str, splits: dict[str, Split], tree: Tree) -> Record:
    parts = name.split("/", 2)
    split, label = (splits[parts[0]], parts[1]) if splits else (None, parts[0])
    return Record(name, nfc(label), None, split, None, None, tree.pictures[name])


def _splits(names: list[str]) -> dict[str, Split]:
    """Return the split of each top folder when they are named so; empty when the top folders are classes."""
    tops = sorted({name.split("/", 1)[0] for name in names})
    splits = {top: SPLIT_NAMES[top.casefold()] for top in tops if top.casefold() in SPLIT_NAMES}
    deep = {name.split("/", 1)[0] for name in names if name.count("/") > 1}
    divided = splits.keys() & deep
    if not divided or (len(divided) == 1 and len(tops) > 1):  # a class may well be called "train"
        return {}
    if len(splits) < len(tops):
        raise DatasetError(
            "The folder mixes split folders and class folders.",
            seen=", ".join(tops),
            accepted="either one folder a class, or train, val and test with the classes below",
        )
    if sorted(splits.values()) != sorted(set(splits.values())) or "train" not in splits.values():
        raise DatasetError(
            "The split folders are not complete, or one is there twice.",
            seen=", ".join(tops),
            accepted="train, with val (or valid, validation) and test where they are given",
        )
    return splits


def _check_classes(listing: Listing, *, depth: int) -> None:
    check_twins({record.path.split("/")[depth] for record in listing.records})
    labels = {record.label for record in listing.records}
    if len(labels) < 2:
        raise DatasetError(
            "The folder has only one class.",
            seen=some(sorted(str(label) for label in labels)),
            accepted="at least two folders with pictures",
        )


def _tell(listing: Listing, tree: Tree, outside: list[str], *, depth: int) -> None:
    names = {nfc(f.rsplit("/", 1)[-1]) for f in tree.folders if f.count("/") == depth}
    empty = sorted(names - {record.label for record in listing.records} - SKIPPED_FOLDERS)
    counts = {
        "files that are no pictures": len(tree.others),
        "pictures outside a class folder": len(outside),
        "empty class folders": len(empty),
    }
    listing.passed_over.update({what: count for what, count in counts.items() if count})
    if outside:
        listing.notes.append(f"pictures outside a class folder: {some(outside)}")
    if empty:
        listing.notes.append(f"class folders without a picture: {some(empty)}")


def _look(place: Place) -> Sign | None:
    if place.is_file:
        return None
    classes = [name for name in place.folders if place.child(name).has_pictures(2)]
    if len(classes) == 1 and classes[0].casefold() in SPLIT_NAMES:
        inner = place.child(classes[0])
        below = [name for name in inner.folders if inner.child(name).has_pictures(1)]
        if len(below) > 1:
            return Sign(f"{classes[0]}/ with class folders: {some(below)}", 0.9, frozenset(classes))
    if len(classes) < 2:
        return None
    if all(name.casefold() in SPLIT_NAMES for name in classes):
        if all(place.child(name).folders for name in classes):
            return Sign(f"{some(classes)} with class folders in them", 0.9, frozenset(classes))
        return Sign(f"folders with pictures: {some(classes)}", 0.3, frozenset(classes))
    shallow = all(place.child(name).has_pictures() for name in classes)
    return Sign(f"one folder a class: {some(classes)}", 0.85 if shallow else 0.6, frozenset(classes))


def _write(listing: Listing, target: Target) -> None:
    labels = clean_labels({str(record.label) for record in listing.records}, target)
    if any(record.group is not None for record in listing.records):
        target.notes.append("ImageFolder cannot hold groups (what must stay together): they are left out")
    names = plain_names(listing)
    folders = [
        f"{record.split}/{labels[str(record.label)]}" if listing.is_split else labels[str(record.label)]
        for record in listing.records
    ]
    write_pictures(listing, [f"{f}/{n}" for f, n in zip(folders, names, strict=True)], target)


IMAGEFOLDER = Format(
    name="imagefolder",
    doc="one folder a class, also below train/val/test",
    look=_look,
    read=read_imagefolder,
    write=_write,
    boxes=False,
    labels=True,
)
