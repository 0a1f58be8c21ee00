"""IDX: the files of MNIST and its kin, pixels in one file and labels in another, also with .gz."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.formats.base import Format, Place, Sign
from autodl_ray.data.formats.cached import content_key, keep_pack
from autodl_ray.data.formats.reading import MAX_RECORDS, as_label, read_text
from autodl_ray.data.formats.walk import check_twins, walk
from autodl_ray.data.records import Listing, Range, Record, some
from autodl_ray.errors import DatasetError

__all__ = ["IDX", "read_idx"]

_IMAGES = re.compile(r"(?i)(.*?)images?(.*?)idx[34](.*)")
_UINT8 = 0x08
_SPLITS: dict[str, Split] = {"train": "train", "t10k": "test", "test": "test", "val": "val"}
_NAMES = ("classes.txt", "labels.txt")
_MOST_SIDE = 100_000
_MOST_PIXELS = 2**40  # of all pictures together


class _Pair(NamedTuple):
    """A file of pictures and that of their labels."""

    name: str
    images: Path
    labels: Path
    split: Split | None


class _Shape(NamedTuple):
    """What the header of a file of pictures says."""

    pictures: int
    height: int
    width: int
    channels: int


def read_idx(path: Path, cache: Path) -> Listing:
    """List the pictures of IDX files.

    The pixels of each file become PGM (or PPM) blobs, a header and the pixels as they are, in one file of the
    cache: the same on every machine. A label is its number, or the line of ``classes.txt`` with that number.

    Args:
        path: Folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` (and ``t10k-…``), also ``.gz``.
        cache: Where the blobs are kept.

    Raises:
        DatasetError: A file is missing, damaged, or does not fit the other.
    """
    folder = walk(path.parent if path.is_file() else path).root  # refuses links that lead out
    place = Place(folder)
    pairs, missing = _pairs(place)
    if not pairs:
        raise DatasetError(
            "There is no file of pictures with its file of labels.",
            seen=f"{path}: {some(missing) or some(place.files)}",
            accepted="train-images-idx3-ubyte and train-labels-idx1-ubyte, also with .gz",
        )
    names_file = next((name for name in _NAMES if name in place.files), None)
    names = _names(folder / names_file) if names_file else ()
    listing = Listing(cache / "packs", "idx", [], classes=names)
    for pair in pairs:
        listing.records.extend(_read_pair(pair, names, cache))
    listing.records.sort(key=lambda record: record.path)
    used = {file.name for pair in pairs for file in (pair.images, pair.labels)} | {names_file}
    rest = [name for name in place.files if name not in used]
    if rest:
        listing.passed_over["files that are not of the data set"] = len(rest)
    if missing:
        listing.notes.append(f"files of pictures without their labels: {some(missing)}")
    if names_file is None:
        listing.notes.append("no classes.txt names the classes: they are called by their numbers")
    return listing


def _pairs(place: Place) -> tuple[list[_Pair], list[str]]:
    pairs, missing = [], []
    by_stem: dict[str, str] = {}
    for name in place.files:  # the unpacked file comes before that with .gz
        by_stem.setdefault(name.removesuffix(".gz"), name)
    for stem, name in sorted(by_stem.items()):
        match = _IMAGES.fullmatch(stem)
        if not match:
            continue
        before, between, after = match.groups()
        wanted = [f"{before}{word}{between}idx1{after}" for word in ("labels", "label")]
        labels = next((by_stem[n] for n in wanted if n in by_stem), None)
        if labels is None:
            missing.append(name)
            continue
        split = next((s for word, s in _SPLITS.items() if word in before.casefold()), None)
        pairs.append(_Pair(before.strip("-_.") or "pictures", place.path / name, place.path / labels, split))
    return pairs, missing


def _names(path: Path) -> tuple[str, ...]:
    names = tuple(as_label(line) or "" for line in read_text(path, 2**20).splitlines() if line.strip())
    if "" in names or len(set(names)) < len(names):
        raise DatasetError("The class names are not usable.", seen=path.name, accepted="one name a line, none twice")
    check_twins(names)
    return names


def _read_pair(pair: _Pair, names: tuple[str, ...], cache: Path) -> list[Record]:
    labels = _read_labels(pair.labels)
    with _opened(pair.images) as stream:
        shape = _read_shape(stream, pair.images)
    if shape.pictures != len(labels):
        raise DatasetError(
            "A file of pictures and its file of labels do not fit.",
            seen=f"{shape.pictures} pictures in {pair.images.name}, {len(labels)} labels in {pair.labels.name}",
            accepted="one label a picture",
        )
    largest = max(labels, default=0)
    if names and largest >= len(names):
        raise DatasetError("A label has no name.", seen=f"{largest}", accepted=f"0 to {len(names) - 1}")
    pack = keep_pack(cache, f"{content_key(pair.images, cache)}-pnm", lambda: _blobs(pair.images))
    suffix = ".pgm" if shape.channels == 1 else ".ppm"
    offsets, lengths = pack.offsets.tolist(), pack.lengths.tolist()
    return [
        Record(
            path=f"{pair.name}/{position:08d}{suffix}",
            label=names[label] if names else str(label),
            split=pair.split,
            where=Range(pack.file, offsets[position], lengths[position]),
            stamp=pack.stamp,
        )
        for position, label in enumerate(labels)
    ]


def _opened(path: Path) -> IO[bytes]:
    try:
        return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise DatasetError("A file cannot be read.", seen=f"{path.name}: {error.strerror}") from error


def _read(stream: IO[bytes], size: int, path: Path) -> bytes:
    try:
        return stream.read(size)
    except (OSError, EOFError, zlib.error) as error:  # gzip: not compressed, cut off, damaged
        raise DatasetError("An IDX file is damaged.", seen=f"{path.name}: {error}") from error


def _read_exactly(stream: IO[bytes], size: int, path: Path) -> bytes:
    data = _read(stream, size, path)
    if len(data) < size:
        raise DatasetError("An IDX file ends too early.", seen=path.name, accepted="as many bytes as its header says")
    return data


def _dimensions(stream: IO[bytes], path: Path, accepted: tuple[int, ...]) -> list[int]:
    magic = _read_exactly(stream, 4, path)
    if magic[:3] != bytes((0, 0, _UINT8)) or magic[3] not in accepted:
        raise DatasetError(
            "This is no IDX file of bytes.",
            seen=f"{path.name} starts with {magic.hex()}",
            accepted=", ".join(f"000008{n:02x}" for n in accepted),
        )
    raw = _read_exactly(stream, 4 * magic[3], path)
    return [int.from_bytes(raw[i : i + 4], "big") for i in range(0, len(raw), 4)]


def _read_shape(stream: IO[bytes], path: Path) -> _Shape:
    count, height, width, *rest = _dimensions(stream, path, (3, 4))
    channels = rest[0] if rest else 1
    fits = 0 < height <= _MOST_SIDE and 0 < width <= _MOST_SIDE and channels in (1, 3) and count <= MAX_RECORDS
    if not fits or count * height * width * channels > _MOST_PIXELS:
        raise DatasetError(
            "An IDX file has a shape that is not accepted.",
            seen=f"{path.name}: {count} x {height} x {width} x {channels}",
            accepted="pictures of 1 or 3 channels",
        )
    return _Shape(count, height, width, channels)


def _read_labels(path: Path) -> bytes:
    with _opened(path) as stream:
        (count,) = _dimensions(stream, path, (1,))
        if count > MAX_RECORDS:
            raise DatasetError("An IDX file has too many labels.", seen=count, accepted=f"at most {MAX_RECORDS:,}")
        return _read_exactly(stream, count, path)


def _blobs(path: Path) -> Iterator[bytes]:
    with _opened(path) as stream:
        shape = _read_shape(stream, path)
        header = f"P{5 if shape.channels == 1 else 6} {shape.width} {shape.height} 255\n".encode()
        size = shape.height * shape.width * shape.channels
        for _ in range(shape.pictures):
            yield header + _read_exactly(stream, size, path)
        if _read(stream, 1, path):
            raise DatasetError("An IDX file goes on after its last picture.", seen=path.name)


def _look(place: Place) -> Sign | None:
    pairs, _ = _pairs(Place(place.path.parent) if place.is_file else place)
    if place.is_file:
        pairs = [pair for pair in pairs if pair.images == place.path]
    if not pairs:
        return None
    uses = frozenset({file.name for pair in pairs for file in (pair.images, pair.labels)} | {*_NAMES})
    return Sign(f"pictures and labels: {some(sorted(uses - {*_NAMES}), 2)}", 0.98, uses)


IDX = Format(
    name="idx",
    doc="IDX files of MNIST: *-images-idx3-ubyte and *-labels-idx1-ubyte, also .gz",
    look=_look,
    read=read_idx,
    write=None,
    boxes=False,
    labels=True,
)
