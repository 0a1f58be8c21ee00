"""Tables: which columns mean what, and rows that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autodl_ray.data.formats import detect, read
from autodl_ray.data.formats.table import read_table
from autodl_ray.data.formats.table_rows import Header, find_columns
from autodl_ray.data.records import Box, Listing
from autodl_ray.errors import DatasetError
from tests.data.formats.makers import picture, put


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(6):
        put(tmp_path / "data" / "img" / f"{number}.png", picture(number))
    return tmp_path / "data"


def table(root: Path, text: str, name: str = "t.csv") -> Listing:
    put(root / name, text)
    return read(root, cache=root.parent / "cache")


@pytest.mark.parametrize(
    ("header", "path", "label", "split"),
    [
        (("path", "label"), "path", "label", None),
        (("id", "image", "class", "set"), "image", "class", "set"),
        (("File Name", "Target", "SPLIT"), "File Name", "Target", "SPLIT"),
        (("image_id", "width", "category"), "image_id", "category", None),
    ],
)
def test_columns_are_found(header: tuple[str, ...], path: str, label: str, split: str | None) -> None:
    found = find_columns(Header(header))
    assert (found.path, found.label, found.split, found.fit) == (path, label, split, True)


@pytest.mark.parametrize("header", [("a", "b"), ("path",), ("label",), ("path", "xmin", "ymin", "xmax"), ()])
def test_tables_that_say_nothing_of_pictures(header: tuple[str, ...], root: Path) -> None:
    assert not find_columns(Header(header)).fit
    put(root / "t.csv", ",".join(header) + "\n" if header else "x\n")
    with pytest.raises(DatasetError, match="No table names pictures and their classes"):
        read_table(root, root.parent / "cache")


@pytest.mark.parametrize("name", ["img/1.png", "1.png", "1", "./img/1.png", "img\\1.png", "/elsewhere/data/img/1.png"])
def test_pictures_are_found_by_path_name_or_stem(root: Path, name: str) -> None:
    listing = table(root, f"path,label\n{name},cat\n")
    assert [(record.path, record.label) for record in listing.records] == [("img/1.png", "cat")]
    assert listing.passed_over == {"pictures that no row names": 5}


def test_rows_that_cannot_be_used_are_listed(root: Path) -> None:
    listing = table(
        root,
        "path,label,split\n0.png,cat,train\n9.png,cat,train\n,cat,train\n1.png,,train\n2.png,cat,extra\n"
        "3.png,cat\n../../secret.png,cat,train\n0.png,cat,train\n0.png,dog,train\n0.png,cat,test\n",
    )
    assert [record.path for record in listing.records] == ["img/0.png"]
    assert dict(listing.problems) == {
        "t.csv:3": "there is no picture '9.png'",
        "t.csv:4": "the row names no picture",
        "t.csv:5": "the row has no class",
        "t.csv:6": "the split 'extra' is not train, val or test",
        "t.csv:7": "2 cells instead of 3",
        "t.csv:8": "there is no picture '../../secret.png'",
        "t.csv:10": "img/0.png has another class in another row: cat, not dog",
        "t.csv:11": "img/0.png is already in train, not test",
    }
    assert listing.passed_over["rows that say again what another says"] == 1


def test_a_table_none_of_whose_rows_can_be_used(root: Path) -> None:
    with pytest.raises(DatasetError, match="No row of the table gives a usable picture") as caught:
        table(root, "path,label\nx.png,cat\n")
    assert "t.csv:2: there is no picture 'x.png'" in str(caught.value)


def test_groups_whole_numbers_and_unused_columns(root: Path) -> None:
    listing = table(root, "image,target,patient_id,age\n0.png,3,p1,50\n1.png,3,p1,51\n2.png,4,p2,52\n")
    assert [(r.label, r.group) for r in listing.records] == [("3", "p1"), ("3", "p1"), ("4", "p2")]
    assert "columns that are not used: age" in listing.notes
    assert listing.metadata == ("t.csv",)


def test_tables_without_a_header(root: Path) -> None:
    assert [r.label for r in table(root, "img/0.png,cat\nimg/1.png,dog\n").records] == ["cat", "dog"]
    boxes = table(root, "img/0.png,1,2,3,4,cat\nimg/0.png,2,3,4,5,dog\nimg/1.png,,,,,\n")
    assert [record.boxes for record in boxes.records] == [(Box("cat", 1, 2, 3, 4), Box("dog", 2, 3, 4, 5)), ()]


def test_one_file_a_split(root: Path) -> None:
    put(root / "train.csv", "path,label\n0.png,cat\n1.png,dog\n")
    put(root / "val.csv", "path,label\n2.png,cat\n")
    put(root / "test.tsv", "path\tlabel\n3.png\tcat\n")
    put(root / "sample_submission.csv", "path,label\n0.png,dog\n")
    listing = read(root, cache=root.parent / "cache")
    assert [record.split for record in listing.records] == ["train", "train", "val", "test"]
    assert not listing.problems


BOXES: list[tuple[Any, list[Box]]] = [
    ([], []),
    (None, []),
    ([{"label": "cat", "xmin": 1, "ymin": 2, "xmax": 3.5, "ymax": 4}], [Box("cat", 1, 2, 3.5, 4)]),
    ([{"class": 7, "bbox": [1, 2, 3, 4]}], [Box("7", 1, 2, 4, 6)]),
    ([{"name": "cat", "x1": 1, "y1": 2, "x2": 3, "y2": 4, "iscrowd": 1}], [Box("cat", 1, 2, 3, 4, crowd=True)]),
    ([[1, 2, 3, 4, "dog"], [1, 2, 3, 4, "cat"]], [Box("dog", 1, 2, 3, 4), Box("cat", 1, 2, 3, 4)]),
    ({"bbox": [[1, 2, 3, 4]], "category": ["cat"]}, [Box("cat", 1, 2, 4, 6)]),
    (json.dumps([[1, 2, 3, 4, "dog"]]), [Box("dog", 1, 2, 3, 4)]),
]


@pytest.mark.parametrize(("value", "boxes"), BOXES)
def test_boxes_in_the_shapes_that_people_use(root: Path, value: Any, boxes: list[Box]) -> None:
    row = {"image": "0.png", "objects": value}
    listing = table(root, json.dumps(row) + "\n", "t.jsonl")
    assert listing.records[0].boxes == tuple(boxes)
    assert not listing.problems


@pytest.mark.parametrize(
    "value",
    ["no json", 5, [[1, 2, 3]], [{"label": "cat"}], [["a", 1, 2, 3, "c"]], {"bbox": [[1, 2, 3, 4]], "category": []}],
)
def test_boxes_that_cannot_be_read_are_listed(root: Path, value: Any) -> None:
    listing = table(root, json.dumps({"image": "0.png", "boxes": value}) + "\n", "t.jsonl")
    assert listing.records[0].boxes == ()
    assert len(listing.problems) == 1
    assert "box" in listing.problems[0].reason


def test_a_box_that_is_no_number_is_listed(root: Path) -> None:
    listing = table(root, "path,label,xmin,ymin,xmax,ymax\n0.png,cat,1,2,x,4\n0.png,cat,1,2,3,nan\n0.png,cat,1,2,3,4\n")
    assert listing.records[0].boxes == (Box("cat", 1, 2, 3, 4),)
    assert [problem.path for problem in listing.problems] == ["t.csv:2", "t.csv:3"]


def test_lines_and_files_that_are_no_text(root: Path) -> None:
    with pytest.raises(DatasetError, match="A line is too long"):
        read_table(_put(root / "long.csv", b"path,label\n" + b"x" * (2**20 + 5)), root.parent)
    with pytest.raises(DatasetError, match="is not UTF-8"):
        read_table(_put(root / "latin.csv", "path,label\n0.png,caf\u00e9\n".encode("latin-1")), root.parent)
    with pytest.raises(DatasetError, match="is not text"):
        read_table(_put(root / "zero.csv", b"path,label\n0.png,\0\n"), root.parent)
    assert read_table(_put(root / "bom.csv", b"\xef\xbb\xbfpath,label\n0.png,a\n"), root.parent).records[0].label == "a"


def _put(path: Path, data: bytes) -> Path:
    put(path, data)
    return path


def test_lines_of_jsonl_that_are_no_rows(root: Path) -> None:
    text = '{"image": "0.png", "label": "a"}\n\nnot json\n[1]\n{"image": {"x": 1}, "label": "a"}\n'
    listing = table(root, text, "t.jsonl")
    assert len(listing.records) == 1
    assert dict(listing.problems) == {
        "t.jsonl:3": "no JSON",
        "t.jsonl:4": "no JSON object",
        "t.jsonl:5": "the row names no picture",
    }


def test_parquet_with_plain_bytes_and_paths(root: Path) -> None:
    rows = {"image": [picture(0), None, b"no picture", picture(3, kind="JPEG")], "label": ["a", "a", "b", "b"]}
    pq.write_table(pa.table(rows), root / "held.parquet")
    listing = read(root / "held.parquet", cache=root.parent / "cache")
    assert [(r.path, r.label) for r in listing.records] == [("held/00000000.png", "a"), ("held/00000003.jpg", "b")]
    assert listing.read(listing.records[1]) == picture(3, kind="JPEG")
    assert [(p.path, p.reason) for p in listing.problems] == [
        ("held.parquet:2", "the row holds no picture"),
        ("held.parquet:3", "the bytes are no picture of a kind that is known"),
    ]
    pq.write_table(pa.table({"path": ["img/1.png"], "label": ["a"]}), root / "named.parquet")
    assert read(root / "named.parquet", cache=root.parent / "cache").records[0].path == "img/1.png"
    with pytest.raises(DatasetError, match="Some tables hold the bytes of their pictures and others do not"):
        read(root, cache=root.parent / "cache", format="table")


def test_names_in_parquet_that_lead_out_are_not_taken(tmp_path: Path) -> None:
    names = ["../../x.png", "/etc/x.png", "C:\\x.png", "a/../x.png", "ok.png"]
    rows = [{"image": {"bytes": picture(n), "path": name}, "label": "ab"[n % 2]} for n, name in enumerate(names)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    listing = read(tmp_path, cache=tmp_path / "cache")
    assert [record.path for record in listing.records] == [
        "etc/x.png", "ok.png", "t/00000000.png", "t/00000002.png", "t/00000003.png",
    ]  # fmt: skip


def test_pictures_of_two_splits_may_have_one_name(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [{"image": {"bytes": picture(n + len(split)), "path": f"{n}"}, "label": "ab"[n]} for n in range(2)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{split}.parquet")
    listing = read(tmp_path, cache=tmp_path / "cache")
    assert not listing.problems
    assert [(record.path, record.split, record.label) for record in listing.records] == [
        ("0.png", "test", "a"),
        ("1.png", "test", "b"),
        ("train/00000000.png", "train", "a"),
        ("train/00000001.png", "train", "b"),
    ]


def test_class_folders_win_over_a_table_beside_them(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path / "data" / "ab"[number % 2] / f"{number}.png", picture(number))
    put(tmp_path / "data" / "info.csv", "path,label\na/0.png,x\nb/1.png,y\n")
    found = detect(tmp_path / "data", cache=tmp_path / "cache")
    assert (found.format, [other.format for other in found.alternatives]) == ("imagefolder", ["table"])
    assert found.not_understood == ("info.csv",)
    assert {r.label for r in read(tmp_path / "data", cache=tmp_path, format="table").records} == {"x", "y"}
