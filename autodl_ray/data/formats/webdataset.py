"""WebDataset: tar files whose members with one key are a sample; read in place, by range."""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.formats.archives import StrictTarInfo
from autodl_ray.data.formats.base import Format, Place, Sign
from autodl_ray.data.formats.box_values import boxes_of
from autodl_ray.data.formats.names import is_safe
from autodl_ray.data.formats.reading import MAX_RECORDS, as_label
from autodl_ray.data.formats.walk import check_twins, nfc, split_named, split_of_file, start_listing, walk
from autodl_ray.data.records import Box, Listing, Problem, Range, Record, Stamp, some
from autodl_ray.errors import DatasetError
from autodl_ray.images import IMAGE_SUFFIXES

__all__ = ["WEBDATASET", "is_webdataset", "read_webdataset"]

_LABELS = ("cls", "class", "label", "json", "txt", "text")
_MOST_TEXT = 2**20
_GLANCE = 50  # members that recognising looks at
_CHECKED = 100_000  # labels from .txt are looked at as captions from half as many different ones as samples


class _Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int
    size: int


@dataclass
class _Sample:
    """The members with one key."""

    picture: _Member | None = None
    texts: dict[str, _Member] = field(default_factory=dict)


@dataclass
class _Reading:
    """What is known while the shards are read."""

    listing: Listing
    counts: Counter[str] = field(default_factory=Counter)
    captions: Counter[str] = field(default_factory=Counter)

    def problem(self, where: str, reason: str) -> None:
        self.listing.problems.append(Problem(where, reason))


def read_webdataset(path: Path, cache: Path | None = None) -> Listing:
    """List the samples of tar files; nothing is unpacked.

    A sample is the members whose name is the same up to the first dot: a picture and ``.cls`` (a number or a
    name), ``.txt``, or ``.json`` with ``label`` (or ``class``, ``cls``) or ``boxes`` (``objects``, ``annotations``).
    The split is that in the name of the shard or its folder.

    Args:
        path: A tar file, or a folder of tar files.
        cache: Not needed.

    Raises:
        DatasetError: There is no tar, or it is damaged, or has no sample with a picture and a label.
    """
    tree = walk(path.parent if path.is_file() else path)
    shards = [path.name] if path.is_file() else sorted(n for n in tree.others if n.lower().endswith(".tar"))
    reading = _Reading(start_listing(tree, "webdataset"))
    for shard in shards:
        _read_shard(shard, tree.root / shard, tree.stamp(shard), reading)
    listing = reading.listing
    if not listing.records:
        raise DatasetError(
            "No tar holds pictures with labels.",
            seen=f"{path}: {some(shards) or 'no tar'}; " + some((f"{p.path}: {p.reason}" for p in listing.problems), 3),
            accepted="members KEY.jpg and KEY.cls (or KEY.json, KEY.txt)",
        )
    listing.records.sort(key=lambda record: record.path)
    check_twins(
        {r.label for r in listing.records if r.label} | {b.label for r in listing.records for b in r.boxes or ()}
    )
    reading.counts["files that are no tar"] = (
        0 if path.is_file() else len(tree.others) + len(tree.pictures) - len(shards)
    )
    listing.passed_over.update({what: count for what, count in reading.counts.items() if count})
    if len(reading.captions) > 20 and len(reading.captions) > 0.5 * reading.captions.total():
        listing.notes.append(f"the texts look like captions, not classes: {some(reading.captions, 3)}")
    return listing


def _read_shard(shard: str, path: Path, stamp: Stamp, reading: _Reading) -> None:
    prefix = shard.rsplit(".", 1)[0]
    split = split_of_file(shard) or next((s for part in shard.split("/")[:-1] if (s := split_named(part))), None)
    samples: dict[str, _Sample] = {}
    try:
        with path.open("rb") as stream:
            for member in _members(path):
                _sort_in(member, shard, samples, reading)
            for key, sample in samples.items():
                if sample.picture is None:
                    reading.counts["samples without a picture"] += 1
                    continue
                _add(f"{prefix}/{sample.picture.name}", key, sample, stream.fileno(), split, (shard, stamp), reading)
    except OSError as error:
        raise DatasetError("A tar cannot be read.", seen=f"{shard}: {error.strerror or error}") from error


def _members(path: Path) -> Iterator[_Member]:
    """Yield the plain files of an uncompressed tar; their bytes are within it."""
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:", tarinfo=StrictTarInfo) as tar:
            count = 0
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would hold every header in memory
                count += 1
                if count > MAX_RECORDS:
                    raise DatasetError("A tar has too many members.", seen=path.name, accepted=f"{MAX_RECORDS:,}")
                if not info.isreg() or info.issparse():
                    continue
                if info.offset_data + info.size > size:
                    raise DatasetError("A tar ends too early.", seen=f"{path.name}: {info.name!r}")
                yield _Member(info.name, info.offset_data, info.size)
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        raise DatasetError("A tar is damaged.", seen=f"{path.name}: {error}") from error


def _sort_in(member: _Member, shard: str, samples: dict[str, _Sample], reading: _Reading) -> None:
    name = member.name.removeprefix("./")
    if any(part.startswith(".") for part in name.split("/")) and ".." not in name.split("/"):
        return
    if not is_safe(name):
        reading.problem(f"{shard}: {name[:200]!a}", "The name leads out of the tar, or cannot be written down.")
        return
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    sample = samples.setdefault(f"{folder}{slash}{stem}", _Sample())
    if f".{extension.lower()}" in IMAGE_SUFFIXES:
        if sample.picture is not None:
            reading.problem(f"{shard}: {name}", "The sample has another picture already.")
        else:
            sample.picture = member._replace(name=nfc(name))
    elif extension.lower() in _LABELS:
        sample.texts[extension.lower()] = member
    else:
        reading.counts[f"members of kind .{extension[:20]}"] += 1


def _add(
    path: str,
    key: str,
    sample: _Sample,
    descriptor: int,
    split: Split | None,
    shard: tuple[str, Stamp],
    reading: _Reading,
) -> None:
    assert sample.picture is not None
    label, boxes = None, None
    for extension in _LABELS:
        member = sample.texts.get(extension)
        if member is not None and label is None and boxes is None:
            label, boxes = _meaning(extension, member, descriptor, reading, f"{shard[0]}: {member.name}")
    if label is None and boxes is None:
        reading.problem(path, "The sample has no label that can be read.")
        return
    where = Range(shard[0], sample.picture.offset, sample.picture.size)
    reading.listing.records.append(Record(path, label, boxes, split, None, where, shard[1]))


def _meaning(
    extension: str, member: _Member, descriptor: int, reading: _Reading, where: str
) -> tuple[str | None, tuple[Box, ...] | None]:
    """Return the label or the boxes that a text says."""
    if member.size > _MOST_TEXT:
        reading.problem(where, f"The text is larger than {_MOST_TEXT:,} bytes.")
        return None, None
    raw = os.pread(descriptor, member.size, member.offset)
    try:
        text = raw.decode("utf-8-sig")
        value: Any = json.loads(text) if extension == "json" else text
    except (ValueError, RecursionError):
        reading.problem(where, "The text is not UTF-8, or no JSON.")
        return None, None
    if not isinstance(value, dict):
        label = as_label(value)
        if label and extension in ("txt", "text") and reading.captions.total() < _CHECKED:
            reading.captions[label] += 1
        return label, None
    given = next((value[k] for k in ("boxes", "objects", "annotations") if value.get(k) is not None), None)
    label = as_label(next((value[k] for k in ("label", "class", "cls", "class_name") if k in value), None))
    if given is None:
        return label, None
    boxes, wrong = boxes_of(given, label)
    for reason in wrong:
        reading.problem(where, reason)
    return None, tuple(boxes)


def is_webdataset(path: Path) -> bool:
    """Whether the first members of a tar (also a compressed one) are samples: a picture and a text with one key."""
    pictures, texts = set(), set()
    try:
        with tarfile.open(path, "r|*") as tar:
            for _ in range(_GLANCE):
                info = tar.next()
                if info is None:
                    break
                tar.members.clear()  # type: ignore[attr-defined]
                stem, _, extension = info.name.rpartition("/")[2].partition(".")
                key = (info.name.rpartition("/")[0], stem)
                if f".{extension.lower()}" in IMAGE_SUFFIXES:
                    pictures.add(key)
                elif extension.lower() in _LABELS:
                    texts.add(key)
    except (tarfile.TarError, OSError, EOFError, ValueError):
        pass
    return bool(pictures & texts)


def _look(place: Place) -> Sign | None:
    shards = place.ending(".tar")
    if shards and is_webdataset(place.file(shards[0])):
        return Sign(f"{some(shards, 2)} with a picture and a text for each key", 0.95, frozenset(shards))
    if place.is_file:
        return None
    parts = [name for name in place.folders if split_named(name) and place.child(name).ending(".tar")]
    if parts and all(is_webdataset(place.child(n).file(place.child(n).ending(".tar")[0])) for n in parts):
        return Sign(f"tar files in {some(parts)}", 0.95, frozenset(parts))
    return None


WEBDATASET = Format(
    name="webdataset",
    doc="tar files with KEY.jpg and KEY.cls (or .json, .txt)",
    look=_look,
    read=read_webdataset,
    write=None,
    boxes=True,
    labels=True,
)
