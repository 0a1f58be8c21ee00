"""Which format a place is of, where it lies in it, and what is said when nothing fits."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from autodl_ray.data.formats import FORMATS, detect, read
from autodl_ray.errors import DatasetError
from tests.data.formats.makers import MAKERS, content, imagefolder, picture, put, voc


def test_nothing_fits(tmp_path: Path) -> None:
    put(tmp_path / "d" / "letters.txt", "hello")
    with pytest.raises(DatasetError, match="No data set was recognised") as caught:
        detect(tmp_path / "d", cache=tmp_path / "cache")
    assert all(name in str(caught.value) for name in FORMATS)
    with pytest.raises(DatasetError, match="No data set was recognised"):
        read(tmp_path / "d" / "letters.txt", cache=tmp_path / "cache")
    with pytest.raises(DatasetError, match="no pictures in class folders"):
        read(tmp_path / "d", cache=tmp_path / "cache")
    with pytest.raises(DatasetError, match="There is no such format") as caught:
        read(tmp_path / "d", cache=tmp_path / "cache", format="vok")
    assert "did you mean 'voc'?" in str(caught.value)


def test_the_only_data_set_below_is_read(tmp_path: Path) -> None:
    truth = voc(tmp_path / "d" / "outer" / "inner", ("cat", "dog"))
    put(tmp_path / "d" / "docs" / "letter.txt", "hello")
    listing = read(tmp_path / "d", cache=tmp_path / "cache")
    assert content(listing) == truth.pictures
    assert listing.notes[0] == "read from the folder outer/inner"
    voc(tmp_path / "d" / "outer" / "other", ("cat", "dog"))
    with pytest.raises(DatasetError, match="holds several data sets") as caught:
        read(tmp_path / "d", cache=tmp_path / "cache")
    assert "outer/inner, outer/other" in str(caught.value)


def test_a_folder_with_one_class_is_refused_as_ever(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / "d" / "cat" / f"{number}.png", picture(number))
    with pytest.raises(DatasetError, match="only one class"):
        read(tmp_path / "d", cache=tmp_path / "cache")


@pytest.mark.parametrize("case", sorted(MAKERS))
def test_a_file_of_the_data_set_may_be_named(case: str, tmp_path: Path) -> None:
    """The table, the JSON, data.yaml, a tar or a file of pixels names its data set."""
    MAKERS[case][1](tmp_path / "d", ("cat", "dog"))
    kinds = (".csv", ".jsonl", ".parquet", ".json", ".yaml", ".tar", "-images-idx3-ubyte.gz")
    files = [path for path in sorted((tmp_path / "d").rglob("*")) if path.name.endswith(kinds)]
    for file in files[:1]:
        found = detect(file, cache=tmp_path / "cache")
        assert found.format == MAKERS[case][0]
        assert read(file, cache=tmp_path / "cache").records


def test_the_one_table_among_many_pictures_is_seen(tmp_path: Path) -> None:
    data, names = picture(0), [f"{number}.png" for number in range(3000)]
    (tmp_path / "d").mkdir()
    for name in names:
        (tmp_path / "d" / name).write_bytes(data)
    put(tmp_path / "d" / "labels.csv", "path,label\n" + "".join(f"{name},{name[0]}\n" for name in names))
    found = detect(tmp_path / "d", cache=tmp_path / "cache")
    assert found.format == "table"
    assert len(read(tmp_path / "d", cache=tmp_path / "cache").records) == 3000


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    imagefolder(tmp_path / "d", ("cat", "dog"))
    os.mkfifo(tmp_path / "d" / "train" / "cat" / "pipe.png")
    os.mkfifo(tmp_path / "d" / "pipe.csv")
    listing = read(tmp_path / "d", cache=tmp_path / "cache")
    assert (len(listing.records), listing.passed_over) == (8, {"pipes, sockets and devices": 2})


def test_two_names_that_are_one_elsewhere(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "caf\u00e9.png")  # type: ignore[arg-type]
        put(tmp_path / "d" / "a" / name, picture(len(name)))
    if len(list((tmp_path / "d" / "a").iterdir())) < 2:
        pytest.skip("this file system makes the names equal")
    put(tmp_path / "d" / "b" / "x.png", picture(1))
    listing = read(tmp_path / "d", cache=tmp_path / "cache")
    assert len(listing.records) == 2
    assert "another Unicode form" in listing.problems[0].reason


def test_what_cannot_be_read(tmp_path: Path) -> None:
    imagefolder(tmp_path / "d", ("cat", "dog"))
    (tmp_path / "d" / "train").chmod(0)
    try:
        os.listdir(tmp_path / "d" / "train")
    except PermissionError:
        with pytest.raises(DatasetError):
            read(tmp_path / "d", cache=tmp_path / "cache")
    finally:
        (tmp_path / "d" / "train").chmod(0o755)


def test_folders_that_lie_too_deep(tmp_path: Path) -> None:
    put(tmp_path / "d" / "/".join("x" * 70) / "p.png", picture(0))
    with pytest.raises(DatasetError, match="Folders lie too deep"):
        read(tmp_path / "d", cache=tmp_path / "cache")
