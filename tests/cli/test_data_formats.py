"""`autodl data detect` and `autodl data convert`."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.cli import app
from autodl_ray.cli.console import Console
from autodl_ray.errors import DatasetError
from tests.data.formats.makers import csv, picture, put, voc


def autodl(capfd: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str | Path) -> str:
    """Run the command in this process and return what it printed; its errors are raised."""
    words = [str(argument) for argument in arguments]
    with closing(Console(json_output="--json" in words)) as console:
        app()(["data", *words, "--store", str(tmp_path / "store")], standalone_mode=False, obj=console)
    return capfd.readouterr().out


def document(capfd: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str | Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(autodl(capfd, tmp_path, *arguments, "--json"))
    return made


def test_detect_says_what_why_and_what_not(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    voc(tmp_path / "d", ("cat", "dog"))
    put(tmp_path / "d" / "README.md", "hello")
    put(tmp_path / "d" / "JPEGImages" / "lonely.png", picture(99))
    out = autodl(capfd, tmp_path, "detect", tmp_path / "d")
    assert "voc: XML files in Annotations/ (confidence 0.95)" in out
    assert "8 pictures, 2 classes, 7 boxes" in out
    assert "train 4, val 2, test 2" in out
    assert "not understood: README.md" in out
    assert "not usable: JPEGImages/lonely.png: The picture has no usable XML file." in out
    facts = document(capfd, tmp_path, "detect", tmp_path / "d")
    assert (facts["format"], facts["task"], facts["pictures"], facts["boxes"]) == ("voc", "detection", 8, 7)
    assert facts["splits"] == {"train": 4, "val": 2, "test": 2}
    assert facts["classes"] == {"cat": 6, "dog": 1}
    assert facts["not_understood"] == ["README.md"]
    assert facts["problems"] == [{"path": "JPEGImages/lonely.png", "reason": "The picture has no usable XML file."}]


def test_detect_refuses_what_is_no_data_set(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    put(tmp_path / "d" / "x.txt", "hello")
    with pytest.raises(DatasetError, match="No data set was recognised"):
        autodl(capfd, tmp_path, "detect", tmp_path / "d")


def test_convert_there_and_back(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    csv(tmp_path / "d", ("cat", "dog"))
    out = autodl(capfd, tmp_path, "convert", tmp_path / "d", tmp_path / "folder", "--to", "imagefolder")
    assert "imagefolder, 8 pictures, 0 boxes" in out
    done = document(capfd, tmp_path, "convert", tmp_path / "folder", tmp_path / "table", "--to", "parquet")
    assert (done["format"], done["pictures"], done["notes"]) == ("parquet", 8, [])
    assert done["source"]["splits"] == {"train": 4, "val": 2, "test": 2}
    assert (tmp_path / "table" / "data.parquet").is_file()


def test_convert_refuses_before_it_reads(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="There is no such format"):
        autodl(capfd, tmp_path, "convert", tmp_path / "nowhere", tmp_path / "out", "--to", "yollo")
    put(tmp_path / "full" / "x", "x")
    with pytest.raises(DatasetError, match="target folder is not empty"):
        autodl(capfd, tmp_path, "convert", tmp_path / "nowhere", tmp_path / "full", "--to", "coco")
    csv(tmp_path / "d", ("cat", "dog"))
    with pytest.raises(DatasetError, match="The format cannot hold labels") as caught:
        autodl(capfd, tmp_path, "convert", tmp_path / "d", tmp_path / "out", "--to", "coco")
    assert "parquet, imagefolder" in str(caught.value)


@pytest.mark.parametrize("verb", ["detect", "convert"])
def test_help_has_examples(capfd: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit):
        app()(["data", verb, "--help"])
    assert "Examples" in capfd.readouterr().out
