"""The rows of a version: their file, their hash, and the samples that come out."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodl_ray.data.facts.reading import PictureFacts
from autodl_ray.data.records import Box, Range, Record
from autodl_ray.data.versions.index import IndexRow, class_names, index_row, read_index, version_hash, write_index
from autodl_ray.data.versions.keeping import keep_version, load_version, make_version
from autodl_ray.errors import BundleError, DatasetError
from autodl_ray.runtime import Context

SHA = [f"{i:064x}" for i in range(1, 9)]


def row(path: str, label: str | None = "a", sha: str = SHA[0], **more: Any) -> IndexRow:
    base = IndexRow(path, label, None, "train", None, sha, 10)
    return base._replace(**more)


ROWS = [
    row("a/1.png"),
    row("a/ü 2.png", sha=SHA[1], split="val", group="ward 3", width=12, height=8),
    row("b/3.png", "b", SHA[2], split="test", where=Range("photos.tar", 512, 10)),
    row("b/4.png", "b", SHA[3], split=None, problem="This is not a picture."),
    row("c/5.png", None, SHA[4], boxes=(Box("x", 0, 1.5, 2, 3, True), Box("y", -1, 0, 5.25, 6, crowd=True))),
    row("c/6.png", None, SHA[5], boxes=()),
    row("c/7.png", None, "", bytes=0, problem="The file cannot be read: gone."),
]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    shuffled = ROWS.copy()
    random.Random(0).shuffle(shuffled)
    write_index(tmp_path / "i.parquet", shuffled)
    assert read_index(tmp_path / "i.parquet") == ROWS
    write_index(tmp_path / "none.parquet", [])
    assert read_index(tmp_path / "none.parquet") == []


def test_other_tools_read_the_index(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_index(tmp_path / "i.parquet", ROWS)
    table = pq.read_table(tmp_path / "i.parquet").to_pylist()
    assert table[4]["boxes"][0]["ymin"] == 1.5
    assert table[4]["boxes"][0]["difficult"] is True
    assert (table[0]["sha256"].hex(), table[0]["boxes"], table[5]["boxes"]) == (SHA[0], None, [])


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 500])
def test_a_damaged_index_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "i.parquet"
    path.write_bytes(damage)
    with pytest.raises(BundleError, match="index of the data set is damaged"):
        read_index(path)


CHANGES: list[dict[str, Any]] = [
    {"path": "c/5b.png"},
    {"label": "x"},
    {"split": "val"},
    {"split": None},
    {"sha256": SHA[7]},
    {"boxes": None},
    {"boxes": ()},
    {"boxes": (Box("x", 0, 1.5, 2, 3, True), Box("y", -1, 0, 5.25, 6))},
    {"boxes": (Box("x", 0, 1.5000001, 2, 3, True), Box("y", -1, 0, 5.25, 6, crowd=True))},
    {"boxes": (Box("z", 0, 1.5, 2, 3, True), Box("y", -1, 0, 5.25, 6, crowd=True))},
]


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_gives_another_hash(change: dict[str, Any]) -> None:
    changed = [r._replace(**change) if r.path == "c/5.png" else r for r in ROWS]
    assert version_hash(changed, ["a"]) != version_hash(ROWS, ["a"])


def test_what_is_no_content_gives_the_same_hash() -> None:
    first = version_hash(ROWS, ["a", "b"])
    other = [r._replace(width=1, height=2, bytes=3, problem="?", group="g", where=Range("elsewhere")) for r in ROWS]
    assert version_hash(other[::-1], ["a", "b"]) == first
    whole = [
        r._replace(boxes=r.boxes and tuple(Box(b.label, *map(float, b[1:5]), *b[5:]) for b in r.boxes)) for r in ROWS
    ]
    assert version_hash(whole, ["a", "b"]) == first
    assert version_hash(ROWS, ["b", "a"]) != first
    assert version_hash(ROWS[1:], ["a", "b"]) != first


def test_the_hash_is_what_the_document_says() -> None:
    rows = [row("é", None, SHA[0], boxes=(Box("x", -0.0, 1, 2.5, 3, crowd=True),)), row("b", sha=SHA[1], split=None)]
    second = '["\\u00e9",null,[["x",0.0,1.0,2.5,3.0,false,true]],"train","' + SHA[0] + '"]'
    text = '["autodl data version 1",["a"],[["b","a",null,null,"' + SHA[1] + '"],' + second + "]]"
    assert version_hash(rows, ["a"]) == hashlib.sha256(text.encode()).hexdigest()


def test_names_of_one_picture_in_two_unicode_forms(context: Context, tmp_path: Path) -> None:
    facts = PictureFacts(SHA[0], 0, 0, 3)
    decomposed = "u\u0308/1.png"
    made = index_row(Record(decomposed, "ü"), split="train", facts=facts)
    assert (made.path, made.where) == ("ü/1.png", Range(decomposed))
    (tmp_path / decomposed).parent.mkdir()
    (tmp_path / decomposed).write_bytes(b"abc")
    artifact = keep_version([made], classes=["ü"], findings={}, context=context)
    assert load_version(artifact, tmp_path).train.read(0) == b"abc"
    twin = index_row(Record("ü/1.png", "ü"), split="train", facts=facts)
    with pytest.raises(DatasetError, match="Two pictures have one path") as caught:
        keep_version([made, twin], classes=["ü"], findings={}, context=context)
    assert "ü/1.png" in str(caught.value)


def test_samples_of_pictures_with_boxes_in_a_tar(context: Context, tmp_path: Path) -> None:
    (tmp_path / "p.tar").write_bytes(b"0123456789")
    boxes = (Box("y", 1, 2, 3, 4), Box("x", 5, 6, 7, 8, difficult=True))
    rows = [
        row("1", None, SHA[0], boxes=boxes, where=Range("p.tar", 2, 3)),
        row("2", None, SHA[1], boxes=(), where=Range("p.tar", 5, 5)),
        row("3", None, SHA[2], boxes=(Box("x", 0, 0, 1, 1),), where=Range("p.tar", 0, 2), split="val"),
    ]
    artifact = keep_version(rows, classes=class_names(rows, ["y"]), findings={}, context=context)
    version = make_version(artifact, tmp_path, rows)
    assert version.classes == ("y", "x")
    assert [version.train.read(i) for i in range(2)] == [b"234", b"56789"]
    assert version.val.read(0) == b"01"
    assert version.train.labels.tolist() == [-1, -1]
    assert version.train.boxes is not None
    coords, labels = version.train.boxes.of(0)
    assert coords.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert labels.tolist() == [0, 1]
    assert version.train.boxes.difficult.tolist() == [False, True]
    assert len(version.train.boxes.of(1)[0]) == 0
    assert version.train.take(np.array([1, 0])).boxes is not None
    assert artifact.meta["counts"]["train"] == {"y": 1, "x": 1}
    assert (artifact.meta["boxes"], artifact.meta["task"]) == (3, "detection")


def test_a_picture_that_cannot_be_used_is_a_row_and_no_sample(context: Context, tmp_path: Path) -> None:
    rows = [row("1"), row("2", sha=SHA[1], problem="This is not a picture."), row("3", sha=SHA[2], split=None)]
    artifact = keep_version(rows, classes=["a"], findings={}, context=context)
    version = load_version(artifact, tmp_path)
    assert version.train.paths == ("1",)
    assert (artifact.meta["pictures"], artifact.meta["sizes"]["train"]) == (3, 1)
    assert version.id == version_hash(rows, ["a"])[:32]
