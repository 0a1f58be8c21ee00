"""Layouts of folders: what is read, what is passed over, what is refused."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from autodl_ray.data.formats.imagefolder import read_imagefolder
from autodl_ray.errors import DatasetError
from tests.data.conftest import MakeFolder, write_picture


def test_class_folders_with_odd_names(make_folder: MakeFolder) -> None:
    accented = unicodedata.normalize("NFD", "café au lait")
    root = make_folder({accented: 2, "a b/deep/er": 2, "10%": 1})
    (root / "10%" / "notes.txt").write_text("no picture")
    (root / ".hidden").mkdir()
    write_picture(root / ".hidden" / "x.png", 90)
    write_picture(root / "10%" / ".x.png", 91)
    write_picture(root / "loose.png", 92)
    (root / "empty").mkdir()
    listing = read_imagefolder(root)
    assert {file.label for file in listing.records} == {unicodedata.normalize("NFC", accented), "a b", "10%"}
    assert len(listing.records) == 5
    assert [file.path for file in listing.records] == sorted(file.path for file in listing.records)
    assert listing.passed_over == {
        "files that are no pictures": 1,
        "pictures outside a class folder": 1,
        "empty class folders": 1,
    }
    assert listing.notes == ["pictures outside a class folder: loose.png", "class folders without a picture: empty"]
    assert not listing.is_split


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Valid"])
def test_split_folders(make_folder: MakeFolder, val: str) -> None:
    root = make_folder({"train/a": 2, "train/b": 2, f"{val}/a": 1, f"{val}/b": 1, "test/a": 1, "test/b": 1})
    listing = read_imagefolder(root)
    assert listing.is_split
    assert {(f.split, f.label) for f in listing.records} == {(s, c) for s in ("train", "val", "test") for c in "ab"}


def test_a_class_may_be_called_train(make_folder: MakeFolder) -> None:
    listing = read_imagefolder(make_folder({"train": 2, "bus": 2, "test": 1}))
    assert {file.label for file in listing.records} == {"train", "bus", "test"}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "does not exist"),
        ({"cat": 3}, "only one class"),
        ({"Cat": 3, "cat": 3}, "differ only by case"),
        ({unicodedata.normalize("NFC", "é"): 1, unicodedata.normalize("NFD", "é"): 1}, "differ only by case"),
        ({"train/Cat": 3, "train/dog": 3, "test/cat": 3}, "differ only by case"),
        ({"train/a": 1, "train/b": 1, "test/a": 1, "extra/a": 1}, "mixes split folders and class folders"),
        ({"val/a": 1, "val/b": 1, "test/a": 1}, "split folders are not complete"),
        ({"train/a": 1, "train/b": 1, "val/a": 1, "valid/a": 1}, "split folders are not complete"),
    ],
)
def test_refused_layouts(make_folder: MakeFolder, tmp_path: Path, classes: dict[str, int], message: str) -> None:
    make_folder(classes)
    with pytest.raises(DatasetError, match=message) as caught:
        read_imagefolder(tmp_path / "photos")
    assert caught.value.exit_code == 2


def test_no_folder_and_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DatasetError, match=r"did you mean 'photos'\?"):
        read_imagefolder(tmp_path / "fotos")
    with pytest.raises(DatasetError, match="no pictures in class folders"):
        read_imagefolder(tmp_path / "photos")
    file = write_picture(tmp_path / "x.png", 0)
    with pytest.raises(DatasetError, match="is not a folder"):
        read_imagefolder(file)


def test_links(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 2, "b": 2})
    (root / "a" / "again.png").symlink_to(root / "b" / "b 0.png")
    (root / "c").symlink_to(root / "a")
    listing = read_imagefolder(root)
    assert "a/again.png" in {file.path for file in listing.records}
    assert listing.passed_over == {"links to folders": 1}
    outside = write_picture(tmp_path / "secret.png", 9)
    (root / "a" / "out.png").symlink_to(outside)
    with pytest.raises(DatasetError, match="leads out of the data folder") as caught:
        read_imagefolder(root)
    assert "a/out.png" in str(caught.value)


def test_a_name_that_is_not_utf8_is_listed(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 2, "b": 2})
    try:
        os.rename(os.fsencode(root / "a" / "a 0.png"), os.fsencode(root / "a") + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    listing = read_imagefolder(root)
    assert len(listing.records) == 3
    assert listing.problems == [("a/\\udcff.png", "The name is not valid UTF-8.")]
