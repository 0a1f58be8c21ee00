"""Values of the wrong kind at every place of a file: an error, or a problem that is listed, and nothing else."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from autodl_ray.data.formats import FORMATS, read
from autodl_ray.errors import DatasetError
from tests.data.formats.makers import make_tar, picture, put

VALUES: list[Any] = [
    None, True, -1, 0, 1.5, 10**400, float("inf"), "", "x", "../x", "\ud800", "a\nb", "0.png", [], [1], {}, {"a": 1},
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path / "d" / "0.png", picture(0))
    return tmp_path / "d"


def check(name: str, root: Path) -> None:
    """Read; what comes out can be written down in UTF-8."""
    try:
        listing = FORMATS[name].read(root, root.parent / "cache")
    except DatasetError as error:
        assert error.what  # noqa: PT017
        return
    for record in listing.records:
        texts = [record.path, record.label, record.group, *(box.label for box in record.boxes or ())]
        assert all(text is None or (text and text.encode()) for text in texts)


def test_coco(root: Path) -> None:
    fields = ("id", "file_name", "image_id", "category_id", "bbox", "name", "iscrowd", "group", None)
    for table, value, field in product(("images", "annotations", "categories"), VALUES, fields):
        document: dict[str, Any] = {
            "images": [{"id": 1, "file_name": "0.png"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
            "categories": [{"id": 1, "name": "c"}],
        }
        if field is None:
            document[table] = value
        else:
            document[table][0][field] = value
        put(root / "x.json", json.dumps(document))
        check("coco", root)


def test_table(root: Path) -> None:
    for field, value in product(("image", "label", "split", "group", "boxes", "xmin"), VALUES):
        row = {"image": "0.png", "label": "a", "split": "train", "group": "g", field: value}
        put(root / "x.jsonl", json.dumps(row) + "\n")
        check("table", root)


def test_webdataset(root: Path) -> None:
    for field, value in product(("label", "boxes", "objects", "class"), VALUES):
        make_tar(root / "s.tar", {"a.png": picture(0), "a.json": json.dumps({field: value}).encode()})
        check("webdataset", root)


def test_yolo(root: Path) -> None:
    put(root / "0.txt", "0 .5 .5 .5 .5\n")
    for field, value in product(("names", "train", "val", "test", "path"), VALUES):
        if value != "\ud800":  # which cannot be written in YAML
            put(root / "data.yaml", yaml.safe_dump({"names": ["a"], field: value}))
            check("yolo", root)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("file", ["0.png", "x.txt", "x.json", "x.tar", "x.csv", "x.parquet", "x.yaml", ".hidden"])
def test_a_format_that_was_said_and_does_not_fit(root: Path, name: str, file: str) -> None:
    if file != "0.png":
        put(root / file, "hello, I am a text\n")
    with pytest.raises(DatasetError):
        read(root / file, cache=root.parent / "cache", format=name)
