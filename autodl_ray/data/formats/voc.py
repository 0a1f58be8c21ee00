"""Pascal VOC: an XML file a picture in Annotations, pictures in JPEGImages, lists of names in ImageSets/Main."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.formats.base import Format, Place, Sign, Target
from autodl_ray.data.formats.box_values import flag, make_box
from autodl_ray.data.formats.names import plain_names, write_file, write_pictures
from autodl_ray.data.formats.reading import as_label, as_number, parse_xml, read_capped, read_text
from autodl_ray.data.formats.sizes import picture_size
from autodl_ray.data.formats.walk import SPLIT_NAMES, Finder, Tree, check_twins, nfc, start_listing, walk
from autodl_ray.data.records import Box, Listing, Problem, Record, some
from autodl_ray.errors import DatasetError
from autodl_ray.images import IMAGE_SUFFIXES

__all__ = ["VOC", "read_voc"]

_MAX_XML = 8 * 2**20
_MAX_BOXES = 100_000
_SETS = "ImageSets/Main"
_TRAINVAL = "trainval"


def read_voc(path: Path, cache: Path | None = None) -> Listing:
    """List the pictures that have an XML file, with their boxes as they are written.

    Coordinates are kept as the files have them (the devkit counts pixels from 1); boxes that are empty or out of
    frame are kept too, for the cleaning to find.

    Args:
        path: The folder with ``Annotations`` and ``JPEGImages``, or a folder with XML files beside their pictures.
        cache: Not needed.

    Raises:
        DatasetError: No picture has annotations, or two classes differ only by case or Unicode form.
    """
    tree = walk(path)
    listing = start_listing(tree, "voc")
    files = sorted(name for name in tree.others if name.lower().endswith(".xml"))
    splits, lists = _read_sets(tree, listing)
    counts: Counter[str] = Counter()
    finder = Finder(tree.pictures)
    found: dict[str, Record] = {}
    for name in files:
        _read_file(name, tree, finder, splits, found, listing, counts)
    for picture in sorted(tree.pictures.keys() - found.keys()):
        listing.problems.append(Problem(picture, "The picture has no usable XML file."))
    if not found:
        raise DatasetError(
            "No picture has a Pascal VOC annotation.",
            seen=f"{path}: {len(files)} XML files, {len(tree.pictures)} pictures; "
            + some((f"{p.path}: {p.reason}" for p in listing.problems), 3),
            accepted="Annotations/NAME.xml and JPEGImages/NAME.jpg",
        )
    listing.records.extend(found[name] for name in sorted(found))
    check_twins({box.label for record in listing.records for box in record.boxes or ()})
    counts["files that are no pictures"] = len(tree.others) - len(files) - len(lists)
    listing.passed_over.update({what: count for what, count in counts.items() if count})
    unlisted = [r.path for r in listing.records if r.split is None]
    if splits and unlisted:
        listing.notes.append(f"{len(unlisted)} pictures are in no list of ImageSets/Main: {some(unlisted)}")
    return replace(listing, metadata=(*files, *lists))


def _read_sets(tree: Tree, listing: Listing) -> tuple[dict[str, Split], list[str]]:
    """Return the split of each name, and the lists that were read; ``trainval`` counts where there is no ``train``."""
    lists = {
        name.rsplit("/", 1)[-1].rsplit(".", 1)[0].casefold(): name
        for name in tree.others
        if name.lower().endswith(".txt") and f"/{name.casefold()}".rpartition("/")[0].endswith("/imagesets/main")
    }
    wanted: dict[str, Split] = {stem: SPLIT_NAMES[stem] for stem in lists if stem in SPLIT_NAMES}
    if "train" not in wanted and _TRAINVAL in lists:
        wanted[_TRAINVAL] = "train"
    splits: dict[str, Split] = {}
    for stem, split in wanted.items():
        for line in read_text(tree.root / lists[stem]).split("\n"):
            for name in {line.strip("\r"), line.strip()} - {""}:
                if splits.setdefault(nfc(name), split) != split:
                    listing.problems.append(Problem(lists[stem], f"{name[:200]} is already in {splits[nfc(name)]}"))
    known = {*wanted, *([_TRAINVAL] if _TRAINVAL in lists else [])}
    others = sorted(lists.keys() - known)
    if others:
        listing.notes.append(f"lists of ImageSets/Main that are not used: {some(others)}")
    return splits, [lists[stem] for stem in sorted(known)]


def _read_file(
    name: str,
    tree: Tree,
    finder: Finder,
    splits: dict[str, Split],
    found: dict[str, Record],
    listing: Listing,
    counts: Counter[str],
) -> None:
    try:
        root = parse_xml(read_capped(tree.root / name, _MAX_XML), name)
    except DatasetError as error:
        listing.problems.append(Problem(name, f"{error.what} {error.seen or ''}".strip()))
        return
    if root.tag != "annotation":
        counts["XML files that are no annotation"] += 1
        return
    stem = _stem(name)
    picture = _picture(name, stem, (root.findtext("filename") or "").strip(), finder)
    if picture is None:
        listing.problems.append(Problem(name, "There is no picture for this XML file."))
        return
    if picture in found:
        listing.problems.append(Problem(name, f"{picture} already has an XML file."))
        return
    boxes = _boxes(root, name, listing)
    split = splits.get(nfc(stem)) or splits.get(nfc(_stem(picture)))
    found[picture] = Record(picture, None, boxes, split, None, None, tree.pictures[picture])


def _stem(name: str) -> str:
    """Return the name that lists use: below Annotations or JPEGImages, without the suffix."""
    parts = name.rsplit(".", 1)[0].split("/")
    for position, part in enumerate(parts[:-1]):
        if part.casefold() in ("annotations", "jpegimages"):
            return "/".join(parts[position + 1 :])
    return parts[-1]


def _picture(name: str, stem: str, declared: str, finder: Finder) -> str | None:
    folder = name.rpartition("/")[0]
    top = name[: name.casefold().rfind("annotations/")].strip("/") if "annotations/" in name.casefold() else folder
    folders = [f"{top}/{inner}".strip("/") for inner in ("JPEGImages", "images")] + [folder, top]
    for wanted in (stem, declared):
        picture = finder.find(wanted, folders) if wanted else None
        if picture is not None:
            return picture
    return None


def _boxes(root: ElementTree.Element, name: str, listing: Listing) -> tuple[Box, ...]:
    boxes = []
    for number, element in enumerate(root.iterfind("object"), start=1):
        if number > _MAX_BOXES:
            listing.problems.append(Problem(name, f"More than {_MAX_BOXES:,} boxes; the others are left out."))
            break
        sides = [as_number(element.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
        label = as_label(element.findtext("name"))
        box = make_box(label, sides, (flag(element.findtext("difficult") or ""), False))
        if box is None:
            listing.problems.append(Problem(name, f"Object {number} has no name, or no box of four numbers."))
        else:
            boxes.append(box)
    return tuple(boxes)


def _look(place: Place) -> Sign | None:
    if place.is_file:
        return None
    folder = place.named("Annotations")
    if folder and place.child(folder).holds((".xml",), 3):
        rest = [n for n in (folder, place.named("JPEGImages", "images"), place.named("ImageSets")) if n]
        return Sign(f"XML files in {folder}/", 0.95, frozenset(rest))
    files = place.ending(".xml")
    if files and _is_annotation(place.file(files[0])):
        uses = frozenset({*files, *place.ending(*IMAGE_SUFFIXES)})
        return Sign(f"XML files beside their pictures: {some(files, 2)}", 0.9, uses)
    parts = [name for name in place.folders if name.casefold() in SPLIT_NAMES]
    inner = [place.child(name) for name in parts]
    if inner and all(p.ending(".xml") and _is_annotation(p.file(p.ending(".xml")[0])) for p in inner):
        return Sign(f"XML files beside their pictures in {some(parts)}", 0.9, frozenset(parts))
    return None


def _is_annotation(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return b"<annotation" in stream.read(500)
    except OSError:
        return False


def _write(listing: Listing, target: Target) -> None:
    _tell(listing, target)
    names = plain_names(listing, stems=True)
    write_pictures(listing, [f"JPEGImages/{name}" for name in names], target)
    made: set[Path] = set()
    lists: dict[Split, list[str]] = {}
    for record, name in zip(listing.records, names, strict=True):
        stem = name.rsplit(".", 1)[0]
        size = picture_size(target.folder / "JPEGImages" / name)
        write_file(target.folder / "Annotations" / f"{stem}.xml", _xml(record, name, size), made)
        if record.split is not None:
            lists.setdefault(record.split, []).append(stem)
    for split, stems in lists.items():
        write_file(target.folder / _SETS / f"{split}.txt", "".join(f"{stem}\n" for stem in stems), made)


def _tell(listing: Listing, target: Target) -> None:
    if any(box.crowd for record in listing.records for box in record.boxes or ()):
        target.notes.append("Pascal VOC cannot hold crowd flags: they are left out")
    if any(record.group is not None for record in listing.records):
        target.notes.append("Pascal VOC cannot hold groups (what must stay together): they are left out")


def _xml(record: Record, name: str, size: tuple[int, int] | None) -> str:
    lines = ["<annotation>", "\t<folder>JPEGImages</folder>", f"\t<filename>{escape(_legal(name))}</filename>"]
    if size is not None:
        lines.append(f"\t<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>")
    for box in record.boxes or ():
        sides = zip(("xmin", "ymin", "xmax", "ymax"), box[1:5], strict=True)
        lines += [
            "\t<object>",
            f"\t\t<name>{escape(box.label)}</name>",
            f"\t\t<difficult>{int(box.difficult)}</difficult>",
            "\t\t<bndbox>" + "".join(f"<{side}>{_number(value)}</{side}>" for side, value in sides) + "</bndbox>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _legal(text: str) -> str:
    """Replace what XML cannot say; the name of the XML file finds the picture all the same."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


VOC = Format(
    name="voc",
    doc="Pascal VOC: Annotations/*.xml, JPEGImages, ImageSets/Main",
    look=_look,
    read=read_voc,
    write=_write,
    boxes=True,
    labels=False,
)
