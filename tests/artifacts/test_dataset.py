"""The three splits: what each may be asked, and the record of who opened the sealed one."""

from __future__ import annotations

import getpass
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodl_ray.artifacts import SealedSplit, TestSamples, TrainSamples, ValSamples
from autodl_ray.errors import BundleError, StoreError


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


def test_a_part_of_a_split_is_of_its_kind_and_the_test_split_has_none(tmp_path: Path) -> None:
    given = parts(tmp_path)
    assert type(ValSamples(*given).take([0])) is ValSamples
    assert type(TrainSamples(*given).take([0])) is TrainSamples
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


def _open_often(folder: Path, start: Any, purposes: list[str]) -> None:
    samples = TestSamples(folder, np.arange(0), (), np.arange(0), ())
    start.wait()
    for purpose in purposes:
        SealedSplit(0, samples).open(folder / "run" / "openings.json", purpose=purpose)


def test_processes_that_open_at_once_lose_no_opening(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(2)
    purposes = [["shared", *(f"{who} {i}" for i in range(40)), "shared"] for who in range(2)]
    processes = [spawn.Process(target=_open_often, args=(tmp_path, start, mine)) for mine in purposes]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    written = [row["purpose"] for row in json.loads((tmp_path / "run" / "openings.json").read_text())]
    assert sorted(written) == sorted({purpose for mine in purposes for purpose in mine})


@pytest.mark.parametrize("text", ["[{", "[1]", "{}x", '[{"who": "me"}]', "3"])
def test_a_damaged_record_keeps_the_split_closed(tmp_path: Path, text: str) -> None:
    record = tmp_path / "o.json"
    record.write_text(text)
    with pytest.raises(BundleError, match="record of who opened the test split is damaged") as caught:
        SealedSplit(4, TestSamples(*parts(tmp_path))).open(record, purpose="p")
    assert "who, when, purpose" in str(caught.value)
    assert record.read_text() == text


def test_what_cannot_be_written_down_is_not_opened(tmp_path: Path) -> None:
    samples = TestSamples(*parts(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written down"):
        SealedSplit(4, samples).open(tmp_path / "file" / "o.json", purpose="p")
