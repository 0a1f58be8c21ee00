"""The three splits: what each may be asked, and the record of who opened the sealed one."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

import numpy as np
import pytest

from autodl_ray.artifacts import SealedSplit, TestSamples, TrainSamples, ValSamples


def parts(folder: Path) -> tuple[Path, np.ndarray, tuple[str, ...], np.ndarray, tuple[str, ...]]:  # type: ignore[type-arg]
    (folder / "a").mkdir()
    for i in range(4):
        (folder / "a" / f"{i}.jpg").write_bytes(bytes([i]))
    return folder, np.arange(10, 14), tuple(f"a/{i}.jpg" for i in range(4)), np.array([0, 1, 0, 1]), ("x", "y")


def test_samples_are_read_by_position(tmp_path: Path) -> None:
    samples = TrainSamples(*parts(tmp_path))
    assert len(samples) == 4
    assert [samples.read(i) for i in range(4)] == [b"\0", b"\1", b"\2", b"\3"]


def test_a_part_of_the_training_split_keeps_its_ids(tmp_path: Path) -> None:
    part = TrainSamples(*parts(tmp_path)).take([3, 1])
    assert isinstance(part, TrainSamples)
    assert part.ids.tolist() == [13, 11]
    assert part.paths == ("a/3.jpg", "a/1.jpg")
    assert part.labels.tolist() == [1, 1]


def test_only_the_training_split_can_be_resampled(tmp_path: Path) -> None:
    given = parts(tmp_path)
    assert not hasattr(ValSamples(*given), "take")
    assert not hasattr(TestSamples(*given), "take")


def test_opening_is_written_down_once_a_purpose(tmp_path: Path) -> None:
    samples = TestSamples(*parts(tmp_path))
    sealed = SealedSplit(len(samples), samples)
    record = tmp_path / "run" / "openings.json"
    assert sealed.open(record, purpose="candidate 1") is samples
    sealed.open(record, purpose="candidate 1")
    sealed.open(record, purpose="candidate 2")
    rows = json.loads(record.read_text())
    assert [row["purpose"] for row in rows] == ["candidate 1", "candidate 2"]
    assert {row["who"] for row in rows} == {getpass.getuser()}
    assert all(row["when"].endswith("+00:00") for row in rows)


def test_a_user_without_a_name_can_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nobody)
    samples = TestSamples(*parts(tmp_path))
    SealedSplit(4, samples).open(tmp_path / "o.json", purpose="p")
    assert json.loads((tmp_path / "o.json").read_text())[0]["who"].startswith("uid ")
