"""`autodl predict` in a process of its own: tables, JSON, broken pictures, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.tiny import make_bundle, picture


def predict(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [str(a) for a in arguments]
    return subprocess.run(
        [sys.executable, "-m", "autodl_ray", "predict", *words], capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    (photos / "a.png").write_bytes(picture("red"))
    (photos / "more" / "b.jpg").write_bytes(picture("green", size=(9, 40), form="JPEG"))
    (photos / "notes.txt").write_text("not a picture, and not named like one")
    make_bundle(tmp_path)
    return photos


def test_files_and_folders_as_a_table(folder: Path, tmp_path: Path) -> None:
    done = predict(tmp_path / "colours" / "bundle", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "colours 0123456789ab (fp32)" in done.stdout
    red, green = (line.split() for line in done.stdout.splitlines()[2:4])
    assert (red[0], red[-1]) == ("red", str(folder / "a.png"))
    assert (green[0], green[-1]) == ("green", str(folder / "more" / "b.jpg"))
    assert 0.9 < float(red[1]) <= 1
    assert "notes" not in done.stdout


def test_json_with_a_broken_picture_answers_the_others(folder: Path, tmp_path: Path) -> None:
    (folder / "c.jpg").write_text("text")
    done = predict(tmp_path / "colours" / "bundle", folder / "a.png", folder / "c.jpg", folder / "gone.png",
                   folder / "more", "--top-k", 2, "--json")  # fmt: skip
    assert done.returncode == 2
    document = json.loads(done.stdout)
    rows = document["predictions"]
    assert [Path(r["file"]).name for r in rows] == ["a.png", "c.jpg", "gone.png", "b.jpg"]
    assert rows[0]["class"] == "red"
    assert rows[0]["top"][0]["class"] == "red"
    assert len(rows[0]["top"]) == 2
    assert rows[1]["error"].startswith("This is not a picture.")
    assert "No such file" in rows[2]["error"]
    assert rows[3]["class"] == "green"
    assert (document["failed"], document["model"], document["variant"]) == (2, "colours", "fp32")
    assert "2 of 4 pictures could not be read" in done.stderr


def test_no_bundle(tmp_path: Path) -> None:
    done = predict(tmp_path, tmp_path / "a.png")
    assert done.returncode == 2
    assert "no whole artifact here" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_pictures(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = predict(tmp_path / "colours" / "bundle", tmp_path / "empty")
    assert done.returncode == 2
    assert "no pictures in this folder" in done.stderr
