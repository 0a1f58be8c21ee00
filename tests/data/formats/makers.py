"""Small data sets in every format, written by hand and not by the code under test."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from autodl_ray.data.records import Box, Listing

SIZE = (12, 8)
SPLITS = ("train", "train", "train", "train", "val", "val", "test", "test")


@dataclass
class Truth:
    """What a data set holds: for the bytes of each picture (label, split, boxes)."""

    pictures: dict[bytes, tuple[str | None, str | None, tuple[Box, ...] | None]] = field(default_factory=dict)

    def add(self, data: bytes, label: str | None, split: str | None, boxes: tuple[Box, ...] | None = None) -> bytes:
        self.pictures[data] = (label, split, boxes)
        return data


def content(listing: Listing) -> dict[bytes, tuple[str | None, str | None, tuple[Box, ...] | None]]:
    """Return what a listing holds, in the form of :class:`Truth`, with YOLO's boxes rounded to a millionth."""
    digits = 6 if listing.format == "yolo" else 15
    return {listing.read(r): (r.label, r.split, _rounded(r.boxes, digits)) for r in listing.records}


def _rounded(boxes: tuple[Box, ...] | None, digits: int) -> tuple[Box, ...] | None:
    if boxes is None:
        return None
    return tuple(Box(b.label, *(round(side, digits) for side in b[1:5]), b.difficult, b.crowd) for b in boxes)


def picture(number: int, *, kind: str = "PNG", size: tuple[int, int] = SIZE) -> bytes:
    """Return the bytes of a picture that differ for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def boxes_of(number: int, labels: tuple[str, ...]) -> tuple[Box, ...]:
    """Return 0, 1 or 2 boxes in pixels; one of them is difficult."""
    first = Box(labels[0], 1.0, 2.0, 6.0, 7.0)
    second = Box(labels[number // 2 % len(labels)], 0.5, 0.25, 12.0, 8.0, difficult=number % 4 == 1)
    return (first, second)[: number % 3]


def imagefolder(root: Path, labels: tuple[str, ...]) -> Truth:
    truth = Truth()
    for number, split in enumerate(SPLITS):
        label = labels[number % 2]
        put(root / split / label / f"p {number}.png", truth.add(picture(number), label, split))
    return truth


def flat_imagefolder(root: Path, labels: tuple[str, ...]) -> Truth:
    truth = Truth()
    for number in range(8):
        label = labels[number % 2]
        put(root / label / f"{number}.png", truth.add(picture(number), label, None))
    return truth


def csv(root: Path, labels: tuple[str, ...]) -> Truth:
    truth, lines = Truth(), ["Filename;Class;Split;width"]
    for number, split in enumerate(SPLITS):
        label = labels[number % 2]
        put(root / "images" / f"{number}.png", truth.add(picture(number), label, split))
        lines.append(f"{number}.png;{label};{split};12")
    put(root / "labels.csv", "\n".join(lines))
    return truth


def csv_boxes(root: Path, labels: tuple[str, ...]) -> Truth:
    truth, lines = Truth(), ["path,xmin,ymin,xmax,ymax,label,difficult"]
    for number in range(8):
        boxes = boxes_of(number, labels)
        put(root / f"{number}.png", truth.add(picture(number), None, None, boxes))
        lines += [f"{number}.png,{','.join(map(str, b[1:5]))},{b.label},{int(b.difficult)}" for b in boxes]
        lines += [] if boxes else [f"{number}.png,,,,,,"]
    put(root / "boxes.csv", "\n".join(lines) + "\n")
    return truth


def jsonl(root: Path, labels: tuple[str, ...]) -> Truth:
    truth, lines = Truth(), []
    for number, split in enumerate(SPLITS):
        boxes = boxes_of(number, labels)
        put(root / "pics" / f"{number}.png", truth.add(picture(number), None, split, boxes))
        lines.append({"image": f"pics/{number}.png", "split": split, "boxes": [b._asdict() for b in boxes]})
    put(root / "data.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return truth


def parquet(root: Path, labels: tuple[str, ...]) -> Truth:
    """The layout of Hugging Face: one file a split, bytes in a struct, whole numbers for classes."""
    truth = Truth()
    names = {"info": {"features": {"label": {"names": list(labels), "_type": "ClassLabel"}}}}
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = [
            {"image": {"bytes": truth.add(picture(n), labels[n % 2], split), "path": f"{n}.png"}, "label": n % 2}
            for n, own in enumerate(SPLITS)
            if own == split
        ]
        table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(names)})
        (root / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, root / "data" / f"{name}-00000-of-00001.parquet")
    return truth


def voc(root: Path, labels: tuple[str, ...]) -> Truth:
    truth = Truth()
    for number, split in enumerate(SPLITS):
        boxes = boxes_of(number, labels)
        put(root / "JPEGImages" / f"p{number}.png", truth.add(picture(number), None, split, boxes))
        objects = "".join(
            f"<object><name>{b.label}</name><difficult>{int(b.difficult)}</difficult><bndbox>"
            f"<xmin>{b.xmin}</xmin><ymin>{b.ymin}</ymin><xmax>{b.xmax}</xmax><ymax>{b.ymax}</ymax></bndbox></object>"
            for b in boxes
        )
        text = f"<annotation><filename>p{number}.png</filename>{objects}</annotation>"
        put(root / "Annotations" / f"p{number}.xml", text)
        with (root / "list").open("a") as stream:
            stream.write(f"{split} p{number}\n")
    lines = [line.split() for line in (root / "list").read_text().splitlines()]
    (root / "list").unlink()
    for split in ("train", "val", "test"):
        put(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{n}\n" for s, n in lines if s == split))
    return truth


def coco(root: Path, labels: tuple[str, ...]) -> Truth:
    truth = Truth()
    for split in ("train", "val", "test"):
        images, rows = [], []
        for number in [n for n, own in enumerate(SPLITS) if own == split]:
            boxes = boxes_of(number, labels)
            put(root / f"{split}2017" / f"{number:012d}.png", truth.add(picture(number), None, split, boxes))
            images.append({"id": 100 + number, "file_name": f"{number:012d}.png", "width": 12, "height": 8})
            rows += [
                {"id": 10 * number + i, "image_id": 100 + number, "category_id": 7 + 11 * labels.index(b.label),
                 "bbox": [b.xmin, b.ymin, b.xmax - b.xmin, b.ymax - b.ymin], "iscrowd": 0, "difficult": b.difficult}
                for i, b in enumerate(boxes)
            ]  # fmt: skip
        names = [{"id": 7 + 11 * i, "name": label} for i, label in enumerate(labels)]
        document = {"info": {}, "images": images, "annotations": rows, "categories": names}
        put(root / "annotations" / f"instances_{split}2017.json", json.dumps(document))
    return truth


def yolo(root: Path, labels: tuple[str, ...]) -> Truth:
    """The layout of Roboflow: train/images and train/labels, and paths in data.yaml that lead out."""
    truth = Truth()
    for number, split in enumerate(SPLITS):
        boxes = tuple(box._replace(difficult=False) for box in boxes_of(number, labels))
        folder = root / ("valid" if split == "val" else split)
        put(folder / "images" / f"{number}.png", truth.add(picture(number), None, split, boxes))
        lines = "".join(
            f"{labels.index(b.label)} {(b.xmin + b.xmax) / 24!r} {(b.ymin + b.ymax) / 16!r} "
            f"{(b.xmax - b.xmin) / 12!r} {(b.ymax - b.ymin) / 8!r}\n"
            for b in boxes
        )
        put(folder / "labels" / f"{number}.txt", lines)
    names = ", ".join(json.dumps(label) for label in labels)
    put(root / "data.yaml", f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [{names}]\n")
    return truth


def idx(root: Path, labels: tuple[str, ...]) -> Truth:
    truth = Truth()
    put(root / "classes.txt", "".join(f"{label}\n" for label in labels))
    for split, name in (("train", "train"), ("test", "t10k")):
        numbers = list(range(6)) if split == "train" else [6, 7, 8]
        pixels = np.random.default_rng(len(numbers)).integers(0, 256, (len(numbers), 5, 4), dtype=np.uint8)
        classes = np.array(numbers, dtype=np.uint8) % 2
        for own, number in zip(pixels, numbers, strict=True):
            truth.add(b"P5 4 5 255\n" + own.tobytes(), labels[number % 2], split)
        head = bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in pixels.shape)
        put(root / f"{name}-images-idx3-ubyte.gz", gzip.compress(head + pixels.tobytes()))
        put(
            root / f"{name}-labels-idx1-ubyte",
            bytes((0, 0, 8, 1)) + len(numbers).to_bytes(4, "big") + classes.tobytes(),
        )
    return truth


def webdataset(root: Path, labels: tuple[str, ...]) -> Truth:
    truth = Truth()
    for split in ("train", "val", "test"):
        members: dict[str, bytes] = {}
        for number in [n for n, own in enumerate(SPLITS) if own == split]:
            label = labels[number % 2]
            members[f"{number:04d}.png"] = truth.add(picture(number), label, split)
            members[f"{number:04d}.cls"] = label.encode()
        make_tar(root / f"{split}-000.tar", members)
    return truth


def webdataset_boxes(root: Path, labels: tuple[str, ...]) -> Truth:
    truth, members = Truth(), {}
    for number in range(8):
        boxes = boxes_of(number, labels)
        members[f"a/{number}.jpg"] = truth.add(picture(number, kind="JPEG"), None, None, boxes)
        members[f"a/{number}.json"] = json.dumps({"boxes": [box._asdict() for box in boxes]}).encode()
    make_tar(root / "shard.tar", members)
    return truth


def make_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    """Write a tar of plain files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


MAKERS: dict[str, tuple[str, Callable[[Path, tuple[str, ...]], Truth]]] = {
    "imagefolder": ("imagefolder", imagefolder),
    "imagefolder, not divided": ("imagefolder", flat_imagefolder),
    "csv": ("table", csv),
    "csv with boxes": ("table", csv_boxes),
    "jsonl": ("table", jsonl),
    "parquet": ("table", parquet),
    "voc": ("voc", voc),
    "coco": ("coco", coco),
    "yolo": ("yolo", yolo),
    "idx": ("idx", idx),
    "webdataset": ("webdataset", webdataset),
    "webdataset with boxes": ("webdataset", webdataset_boxes),
}
