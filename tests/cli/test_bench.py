"""`autodl bench` in a process of its own: table, JSON, plot, choice, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.tiny import make_bundle, picture


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    make_bundle(folder)
    return folder / "colours" / "bundle"


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [str(a) for a in arguments]
    return subprocess.run(
        [sys.executable, "-m", "autodl_ray", "bench", *words], capture_output=True, text=True, timeout=120
    )


def test_a_table_a_plot_and_what_to_ship(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture("red"))
    plot = tmp_path / "plots" / "speed.png"
    done = bench(bundle, "--images", tmp_path / "photos", "--engine", "onnxruntime", "--batch", 1, "--batch", 2,
                 "--threads", 1, "--seconds", 2, "--target", "edge", "--plot", plot)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("onnxruntime fp32")]
    assert [row[2:4] for row in rows] == [["1", "1"], ["2", "1"]]
    assert "ship model.onnx: " in done.stdout
    assert "INT8: left out: not made" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_json_is_one_document(bundle: Path) -> None:
    done = bench(bundle, "--engine", "onnxruntime", "--batch", 1, "--threads", 1, "--seconds", 1, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["model"], document["picture"]) == ("colours", [480, 640, 3])
    (row,) = document["rows"]
    assert 0 < row["p50_ms"] <= row["p95_ms"]
    assert document["int8"]["kept"] is False


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--engine", "tensorflow"), "accepted: onnxruntime, openvino, torch, torch bf16"),
        (("--plot", "speed.txt"), "The plot has an unknown suffix."),
        (("--batch", "0"), "A batch and a number of threads are at least 1."),
    ],
)
def test_what_is_refused(bundle: Path, words: tuple[str, ...], says: str) -> None:
    done = bench(bundle, *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""


def test_a_folder_without_pictures(bundle: Path, tmp_path: Path) -> None:
    done = bench(bundle, "--images", tmp_path)
    assert done.returncode == 2
    assert "There are no pictures in this folder." in done.stderr


def test_a_picture_that_is_none_is_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    done = bench(bundle, "--images", tmp_path)
    assert done.returncode == 2
    assert "broken.jpg: This is not a picture." in done.stderr
