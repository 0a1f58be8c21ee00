"""A group that loses a worker goes on where it was, with the same curve; and so does one of another size."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.errors import StageError
from autodl_ray.train.launch import launch
from autodl_ray.train.result import FitResult
from tests.train.ddp_sources import Trouble, troubled
from tests.train.sources import ArraySource, coloured, config_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]  # a group starts in 5 s, on a busy machine in 60

SOURCE = coloured(train=71, val=31)  # three steps an epoch, the last of them uneven: 7 = 4 + 3


def train(
    source: ArraySource,
    folder: Path,
    *,
    workers: int,
    rows: list[dict[str, Any]] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    **changes: Any,
) -> FitResult:
    config = config_for(source, model="pixels", epochs=3, dropout=0.0, **changes)
    return launch(
        config,
        source,
        folder=folder,
        num_workers=workers,
        resources_per_worker={"CPU": 0.5},
        report=(rows if rows is not None else []).append,
        should_stop=should_stop,
    )


def same_curve(result: FitResult, reference: FitResult) -> None:
    assert [row["epoch"] for row in result.history] == [row["epoch"] for row in reference.history]
    for key in ("loss", "train_loss", "accuracy"):
        got, expected = ([row[key] for row in run.history] for run in (result, reference))
        assert got == pytest.approx(expected, abs=1e-5), key


def free() -> dict[str, float]:
    import ray

    found: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return {name: amount for name, amount in found.items() if name in ("CPU", "GPU", "memory")}


def comes_back(before: dict[str, float]) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if free() == pytest.approx(before):
            return True
        time.sleep(0.1)
    return False


def after(calls: int) -> Callable[[], bool]:
    left = iter(range(calls))
    return lambda: next(left, None) is None


def test_told_to_leave_and_killed_and_still_the_same_curve(ray_cluster: object, tmp_path: Path) -> None:
    reference = train(SOURCE, tmp_path / "whole", workers=1)
    before = free()
    source = troubled(
        SOURCE, tmp_path / "marks", Trouble("term", epoch=0, step=1), Trouble("kill", epoch=1, step=2), step_s=0.0
    )
    rows: list[dict[str, Any]] = []
    result = train(source, tmp_path / "broken", workers=2, rows=rows)
    assert result.status == "finished"
    same_curve(result, reference)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row.get("restarts", 0) for row in rows] == [1, 2, 2]
    assert "told to leave" in result.notes[0]
    assert "process is gone" in result.notes[1]
    assert "goes on from its last checkpoint" in result.notes[1]
    assert comes_back(before)


def test_stopped_in_an_epoch_and_gone_on_with_another_size(ray_cluster: object, tmp_path: Path) -> None:
    reference = train(SOURCE, tmp_path / "whole", workers=1)
    folder = tmp_path / "changing"
    first = train(SOURCE, folder, workers=1, should_stop=after(4))  # one step into the second epoch
    assert (first.status, first.epochs) == ("stopped", 1)
    source = troubled(SOURCE, tmp_path / "marks", step_s=0.3)
    rows: list[dict[str, Any]] = []
    asked: list[float] = []

    def stop_in_the_third_epoch() -> bool:
        if rows and not asked:
            asked.append(time.monotonic())
        return bool(rows)

    second = train(source, folder, workers=2, rows=rows, should_stop=stop_in_the_third_epoch)
    assert time.monotonic() - asked[0] < 15
    assert (second.status, second.epochs) == ("stopped", 2)
    last = train(SOURCE, folder, workers=1)
    same_curve(last, reference)


def test_accumulated_over_uneven_shares_in_two_workers(ray_cluster: object, tmp_path: Path) -> None:
    reference = train(SOURCE, tmp_path / "one", workers=1)
    source = troubled(SOURCE, tmp_path / "marks", Trouble("memory", epoch=1, step=1))
    rows: list[dict[str, Any]] = []
    result = train(source, tmp_path / "two", workers=2, rows=rows, micro_batch_size=3)
    same_curve(result, reference)
    assert "memory ran out in a worker" in result.notes[0]
    assert "goes on with smaller micro-batches" in result.notes[0]


def test_error_of_the_users_names_its_line_and_the_log(ray_cluster: object, tmp_path: Path) -> None:
    source = troubled(SOURCE, tmp_path / "marks", Trouble("raise", epoch=0, step=1))
    before = free()
    with pytest.raises(StageError) as caught:
        train(source, tmp_path / "run", workers=2)
    text = str(caught.value)
    assert "ZeroDivisionError: of the user's" in text
    assert "ddp_sources.py:" in text
    log = tmp_path / "run" / "error-rank-1.txt"
    assert str(log) in text
    assert "of the user's" in log.read_text()
    assert comes_back(before)
