"""Data sets as they are published."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from autodl_ray.data.formats import detect, read, write
from autodl_ray.data.records import Listing

pytestmark = pytest.mark.shared


def shared(name: str) -> Path:
    root = Path(__file__).parents[3]
    folder = Path(os.environ.get("AUTODL_SHARED") or root.parent / "shared") / "data" / name
    if not folder.is_dir():
        pytest.skip(f"the data set {name} is not beside the checkout")
    return folder


def empty_boxes(listing: Listing) -> list[str]:
    return [
        record.path
        for record in listing.records
        for box in record.boxes or ()
        if box.xmin == box.xmax and box.ymin == box.ymax
    ]


def test_bccd(tmp_path: Path) -> None:
    found = detect(shared("bccd"), cache=tmp_path)
    assert (found.format, found.path.name) == ("voc", "BCCD")
    listing = read(shared("bccd"), cache=tmp_path)
    assert Counter(box.label for record in listing.records for box in record.boxes or ()) == {
        "RBC": 4155,
        "WBC": 372,
        "Platelets": 361,
    }
    assert Counter(record.split for record in listing.records) == {"train": 205, "val": 87, "test": 72}
    assert empty_boxes(listing) == ["JPEGImages/BloodImage_00338.jpg", "JPEGImages/BloodImage_00343.jpg"]
    assert not listing.problems
    assert not listing.passed_over


@pytest.mark.parametrize("target", ["coco", "voc", "yolo", "parquet"])
def test_bccd_comes_through_every_format(tmp_path: Path, target: str) -> None:
    source = read(shared("bccd"), cache=tmp_path / "cache")
    done = write(source, format=target, folder=tmp_path / "out")
    assert (done.pictures, done.boxes, done.notes) == (364, 4888, ())
    again = read(tmp_path / "out", cache=tmp_path / "cache")
    wanted = {source.read(record): record for record in source.records}
    for record in again.records:
        other = wanted[again.read(record)]
        assert record.split == other.split
        if target == "yolo":
            pairs = zip(record.boxes or (), other.boxes or (), strict=True)
            assert all(abs(a - b) < 1e-3 for x, y in pairs for a, b in zip(x[1:5], y[1:5], strict=True))
        else:
            assert record.boxes == other.boxes
    assert len(empty_boxes(again)) == 2


def test_fashion_mnist(tmp_path: Path) -> None:
    assert detect(shared("fashion-mnist"), cache=tmp_path).format == "idx"
    listing = read(shared("fashion-mnist"), cache=tmp_path)
    counts = Counter((record.split, record.label) for record in listing.records)
    assert counts == {(s, str(c)): n for s, n in (("train", 6000), ("test", 1000)) for c in range(10)}
    assert listing.read(listing.records[-1]).startswith(b"P5 28 28 255\n")


def test_trashnet(tmp_path: Path) -> None:
    found = detect(shared("trashnet"), cache=tmp_path)
    assert (found.format, found.path.name) == ("imagefolder", "images")
    listing = read(shared("trashnet"), cache=tmp_path)
    assert Counter(record.label for record in listing.records) == {
        "cardboard": 403, "glass": 501, "metal": 410, "paper": 594, "plastic": 482, "trash": 137,
    }  # fmt: skip
    done = write(listing, format="parquet", folder=tmp_path / "out")
    assert done.pictures == 2527
    assert len(read(tmp_path / "out", cache=tmp_path / "cache").records) == 2527
