"""A snapshot of an untouched folder is told again; whatever was touched, it is looked at."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autodl_ray.cli import main
from autodl_ray.cli.unchanged import told_again
from tests.data.conftest import MakeFolder, write_picture

WORDS = ["data", "snapshot", "photos", "--tag", "raw"]


@pytest.fixture
def taken(make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of which a snapshot was taken a moment ago, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTODL_STORE", "runs")
    root = make_folder({"a": 4, "b": 4})
    time.sleep(0.15)  # files that were just written are never trusted
    snapshot()
    return root


def snapshot(*more: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([*WORDS, *more])
    assert end.value.code == 0


def test_an_untouched_folder(taken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert told_again(WORDS)
    out = capsys.readouterr().out
    assert out.startswith("unchanged: version ")
    assert "8 pictures, 2 classes" in out
    assert "next: autodl run version:raw" in out
    assert told_again([*WORDS, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (document["new"], document["copied"], document["pictures"], document["tag"]) == (False, 0, 8, "raw")
    snapshot()
    assert capsys.readouterr().out == out


def edit_in_place(root: Path) -> None:
    path = root / "a" / "a 0.png"
    stat = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "other bytes, size and time as before": edit_in_place,
    "a new picture": lambda root: write_picture(root / "a" / "new.png", 77),
    "a new file that is no picture": lambda root: (root / "notes.txt").write_text("x"),
    "a picture less": lambda root: (root / "a" / "a 0.png").unlink(),
    "another class": lambda root: (root / "a" / "a 0.png").rename(root / "b" / "moved.png"),
    "an empty folder": lambda root: (root / "c").mkdir(),
    "a renamed class": lambda root: (root / "a").rename(root / "z"),
    "a pack less": lambda root: next((root.parent / "runs/objects/packs").glob("*.pack")).unlink(),
    "the tag gone": lambda root: (root.parent / "runs/datasets/refs/tags/raw.json").unlink(),
    "the index gone": lambda root: shutil.rmtree(next((root.parent / "runs/datasets").glob("[0-9a-f]*"))),
    "the list gone": lambda root: shutil.rmtree(root.parent / "runs/datasets/refs/history"),
    "the folder gone": shutil.rmtree,
    "the memory damaged": lambda root: next((root.parent / "runs/cache").glob("told-*")).write_text("{"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_was_touched(taken: Path, change: str) -> None:
    assert told_again(WORDS)
    CHANGES[change](taken)
    assert not told_again(WORDS)
    time.sleep(0.15)
    assert not told_again(WORDS)


@pytest.mark.parametrize(
    "words",
    [
        ["data", "snapshot", "photos"],
        [*WORDS, "--seed", "1"],
        [*WORDS, "--no-copy"],
        [*WORDS, "-m", "x"],
        [*WORDS, "--store", "other"],
        ["data", "list"],
        [],
    ],
)
def test_other_words_are_another_question(taken: Path, words: list[str]) -> None:
    assert not told_again(words)


def test_a_message_is_written_down_each_time(taken: Path) -> None:
    snapshot("-m", "first")
    snapshot("-m", "second")
    assert not told_again([*WORDS, "-m", "second"])
    assert len(list(Path("runs/datasets/refs/history").iterdir())) == 3


def test_files_written_a_moment_ago_are_not_trusted(taken: Path) -> None:
    words = [*WORDS, "--force"]
    write_picture(taken / "a" / "a 0.png", 600)
    os.utime(taken / "a" / "a 0.png", ns=(0, time.time_ns() + 10**9))  # as if written while the snapshot is taken
    snapshot("--force")
    assert not told_again(words)
    write_picture(taken / "a" / "a 0.png", 600)
    time.sleep(0.15)
    snapshot("--force")
    assert told_again(words)


def test_a_list_of_a_published_split_counts(taken: Path) -> None:
    names = {"train": range(2), "val": range(2, 3), "test": range(3, 4)}
    for name, numbers in names.items():
        Path(f"{name}.txt").write_text("".join(f"{c}/{c} {i}.png\n" for c in "ab" for i in numbers))
    time.sleep(0.15)
    words = [*WORDS[:3], "--splits", "train.txt", "val.txt", "test.txt"]
    with pytest.raises(SystemExit):
        main(words)
    assert told_again(words)
    Path("val.txt").write_text(Path("val.txt").read_text() + "# more\n")
    assert not told_again(words)
