"""Any boxes, any names: what is written and read again is the same."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autodl_ray.data.formats import check_write, read, write
from autodl_ray.data.formats.box_values import add_extent
from autodl_ray.data.formats.coco_write import extent_of
from autodl_ray.data.records import Box, Listing, Record
from autodl_ray.errors import DatasetError
from tests.data.formats.makers import imagefolder, picture, put, voc

sides = st.floats(-1e5, 1e5, allow_nan=False).map(lambda value: value + 0.0)  # no -0.0: text does not keep it
labels = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12).map(
    str.strip
)
names = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0", exclude_categories=["Cs", "Cc"]), min_size=1)
SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def boxes_with(names: list[str]) -> st.SearchStrategy[list[Box]]:
    return st.lists(
        st.builds(Box, st.sampled_from(names), sides, sides, sides, sides, st.booleans(), st.booleans()), max_size=4
    )


def listing_of(root: Path, records: list[Record]) -> Listing:
    return Listing(root, "table", sorted(records))


@pytest.mark.parametrize("target", ["coco", "voc", "parquet", "yolo"])
@SETTINGS
@given(data=st.data())
def test_boxes(target: str, data: st.DataObject) -> None:
    known = data.draw(st.lists(labels.filter(bool), min_size=1, max_size=3, unique_by=str.casefold))
    try:
        from autodl_ray.data.formats.reading import as_label
        from autodl_ray.data.formats.walk import check_twins

        known = [name for label in known if (name := as_label(label))]
        check_twins(known)
    except DatasetError:
        return
    if not known:
        return
    drawn = [data.draw(boxes_with(known)) for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        records = []
        for number, boxes in enumerate(drawn):
            put(root / "in" / f"{number}.png", picture(number))
            records.append(Record(f"{number}.png", None, tuple(boxes), ("train", "val", "test")[number]))
        write(listing_of(root / "in", records), format=target, folder=root / "out")
        again = read(root / "out", cache=root / "cache", format="table" if target == "parquet" else target)
        by_bytes = {again.read(record): record for record in again.records}
        assert not again.problems
        for number, boxes in enumerate(drawn):
            found = by_bytes[picture(number)]
            assert found.split == records[number].split
            _check_boxes(target, boxes, list(found.boxes or ()))


def _check_boxes(target: str, wanted: list[Box], found: list[Box]) -> None:
    if target == "yolo":
        assert [box.label for box in found] == [box.label for box in wanted]
        for a, b in zip(found, wanted, strict=True):
            assert all(math.isclose(p, q, abs_tol=1e-3) for p, q in zip(a[1:5], b[1:5], strict=True))
    elif target == "voc":
        assert found == [box._replace(crowd=False) for box in wanted]
    elif target == "parquet":
        assert found == wanted
    else:
        for a, b in zip(found, wanted, strict=True):
            assert (a.label, a.difficult, a.crowd, a.xmin, a.ymin) == (b.label, b.difficult, b.crowd, b.xmin, b.ymin)
            # COCO says a width; where the corner lies near 0 no width gives it to the last bit.
            assert math.isclose(a.xmax, b.xmax, abs_tol=1e-9)
            assert math.isclose(a.ymax, b.ymax, abs_tol=1e-9)


@given(st.lists(st.integers(0, 10**6), min_size=4, max_size=4))
def test_coco_keeps_decimals_exactly(numbers: list[int]) -> None:
    for scale in (1, 4, 10, 100, 1000):
        low, high = numbers[0] / scale, numbers[1] / scale
        assert add_extent(low, extent_of(low, high)) == high
    low, high = numbers[2] / 3, numbers[3] / 7
    assert math.isclose(add_extent(low, extent_of(low, high)), high, abs_tol=1e-9)


@SETTINGS
@given(st.lists(names, min_size=2, max_size=5, unique_by=lambda name: name.casefold()), st.data())
def test_odd_names(stems: list[str], data: st.DataObject) -> None:
    """Names that a file system takes come through every format with their bytes, label and split."""
    target = data.draw(st.sampled_from(["imagefolder", "parquet", "coco", "voc", "yolo"]))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        records = []
        for number, stem in enumerate(stems):
            name = f"{stem[:40]}.png"
            if len(name.encode()) > 200 or name.startswith(".") or (root / "in" / name).exists():
                continue
            put(root / "in" / name, picture(number))
            boxes = None if target in ("imagefolder", "parquet") else (Box("a b", 1, 2, 3, 4),)
            label = None if boxes else "ab"[number % 2]
            records.append(Record(name, label, boxes, "train"))
        if len({record.label for record in records}) < 2 and target == "imagefolder":
            return
        if not records:
            return
        source = listing_of(root / "in", records)
        write(source, format=target, folder=root / "out")
        again = read(root / "out", cache=root / "cache", format="table" if target == "parquet" else target)
        assert {again.read(r): (r.label, r.split, r.boxes is None) for r in again.records} == {
            source.read(r): (r.label, r.split, r.boxes is None) for r in source.records
        }


def test_pictures_of_one_name_keep_their_bytes(tmp_path: Path) -> None:
    """Folders that say split and label are left out of names, so that two names may meet."""
    records = []
    for number, name in enumerate(("images/a/x.png", "a/x.png", "x.png", "x.jpg", "b/x.png")):
        put(tmp_path / "in" / name, picture(number))
        records.append(Record(name, None, (Box("c", 1, 2, 3, number + 4),), None))
    source = listing_of(tmp_path / "in", records)
    for target in ("yolo", "voc", "coco"):
        write(source, format=target, folder=tmp_path / target)
        again = read(tmp_path / target, cache=tmp_path / "cache")
        assert len(again.records) == 5
        for record in again.records:
            assert record.boxes is not None
            assert again.read(record) == picture(round(record.boxes[0].ymax) - 4)


class TestWriting:
    """What is said, and what is refused."""

    def test_a_folder_that_is_not_empty(self, tmp_path: Path) -> None:
        imagefolder(tmp_path / "in", ("cat", "dog"))
        listing = read(tmp_path / "in", cache=tmp_path / "cache")
        put(tmp_path / "out" / "mine.txt", "keep me")
        with pytest.raises(DatasetError, match="target folder is not empty") as caught:
            write(listing, format="imagefolder", folder=tmp_path / "out")
        assert "--force" in str(caught.value)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
        write(listing, format="imagefolder", folder=tmp_path / "out", force=True)
        assert (tmp_path / "out" / "mine.txt").read_text() == "keep me"
        assert len(read(tmp_path / "out", cache=tmp_path / "cache").records) == 8
        assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}

    def test_a_picture_that_is_gone_leaves_nothing(self, tmp_path: Path) -> None:
        imagefolder(tmp_path / "in", ("cat", "dog"))
        listing = read(tmp_path / "in", cache=tmp_path / "cache")
        (tmp_path / "in" / listing.records[-1].path).unlink()
        for target in ("imagefolder", "parquet"):
            with pytest.raises(DatasetError, match="A picture cannot be read"):
                write(listing, format=target, folder=tmp_path / "out")
            assert {path.name for path in tmp_path.iterdir()} == {"in"}

    def test_what_a_format_cannot_hold_is_said(self, tmp_path: Path) -> None:
        put(tmp_path / "in" / "0.png", picture(0))
        box = Box("c", 1, 2, 3, 4, difficult=True, crowd=True)
        source = listing_of(tmp_path / "in", [Record("0.png", None, (box,), None, "patient 1")])
        said = {t: write(source, format=t, folder=tmp_path / t).notes for t in ("yolo", "voc", "coco", "parquet")}
        assert said["yolo"] == (
            "YOLO cannot hold difficult flags: they are left out",
            "YOLO cannot hold crowd flags: they are left out",
            "YOLO cannot hold groups (what must stay together): they are left out",
        )
        assert said["voc"] == (
            "Pascal VOC cannot hold crowd flags: they are left out",
            "Pascal VOC cannot hold groups (what must stay together): they are left out",
        )
        assert said["coco"] == said["parquet"] == ()
        for target in ("coco", "parquet"):
            record = read(tmp_path / target, cache=tmp_path / "cache").records[0]
            assert (record.boxes, record.group) == ((box,), "patient 1")

    def test_labels_that_are_no_folder_names(self, tmp_path: Path) -> None:
        records = []
        for number, label in enumerate(("T-shirt/top", ".hidden", "Coat")):
            put(tmp_path / "in" / f"{number}.png", picture(number))
            records.append(Record(f"{number}.png", label))
        done = write(listing_of(tmp_path / "in", records), format="imagefolder", folder=tmp_path / "out")
        assert done.notes == (
            "labels that cannot be folder names are written another way: "
            "'.hidden' as '_.hidden', 'T-shirt/top' as 'T-shirt_top'",
        )
        again = read(tmp_path / "out", cache=tmp_path / "cache")
        assert {record.label for record in again.records} == {"_.hidden", "T-shirt_top", "Coat"}
        records.append(Record("2.png", "T-shirt_top"))
        with pytest.raises(DatasetError, match="Two labels would share a folder"):
            write(listing_of(tmp_path / "in", records), format="imagefolder", folder=tmp_path / "twice")

    def test_pictures_without_a_split_among_others(self, tmp_path: Path) -> None:
        voc(tmp_path / "in", ("cat", "dog"))
        listing = read(tmp_path / "in", cache=tmp_path / "cache")
        listing.records[0] = listing.records[0]._replace(split=None)
        with pytest.raises(DatasetError, match="in no split, which this format cannot say"):
            write(listing, format="yolo", folder=tmp_path / "yolo")
        for target in ("coco", "voc", "parquet"):
            write(listing, format=target, folder=tmp_path / target)
            again = read(tmp_path / target, cache=tmp_path / "cache")
            assert {again.read(r): r.split for r in again.records} == {
                listing.read(r): r.split for r in listing.records
            }

    def test_formats_that_are_only_read(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="This format is only read"):
            check_write(format="idx", folder=tmp_path / "out")
        with pytest.raises(DatasetError, match="There is no such format") as caught:
            check_write(format="coko", folder=tmp_path / "out")
        assert "did you mean 'coco'?" in str(caught.value)
        (tmp_path / "file").write_text("x")
        with pytest.raises(DatasetError, match="The target is no folder"):
            check_write(format="coco", folder=tmp_path / "file")
