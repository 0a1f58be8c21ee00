"""A worker that is told to leave saves at once, and what it leaves is enough to go on without a difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autodl_ray.runtime import StopFlag
from autodl_ray.train.errors import WorkerLost
from autodl_ray.train.loop import fit
from autodl_ray.train.peers import Alone, StepVote
from autodl_ray.train.relay import so_far
from autodl_ray.train.result import FitResult
from tests.train.sources import coloured, config_for

SOURCE = coloured()
CONFIG = config_for(SOURCE, dropout=0.3)


def after(calls: int) -> Callable[[], bool]:
    left = iter(range(calls))
    return lambda: next(left, None) is None


def train(folder: Path, *, leaving: Callable[[], bool] | None = None, rows: list[Any] | None = None) -> FitResult:
    report = (rows if rows is not None else []).append
    return fit(CONFIG, SOURCE, folder=folder, report=report, should_stop=lambda: False, peers=Alone(leaving))


@pytest.mark.parametrize("steps", [1, 4])
def test_it_saves_without_a_validation_and_goes_on_the_same(tmp_path: Path, steps: int) -> None:
    whole = train(tmp_path / "whole")
    rows: list[Any] = []
    left = train(tmp_path / "left", leaving=after(steps), rows=rows)
    assert (left.status, left.epochs) == ("stopped", steps // 3)
    assert len(rows) == steps // 3
    gone_on = train(tmp_path / "left", rows=rows)
    assert [row["loss"] for row in gone_on.history] == [row["loss"] for row in whole.history]
    assert [row["train_loss"] for row in gone_on.history] == [row["train_loss"] for row in whole.history]
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_what_there_is_so_far(tmp_path: Path) -> None:
    assert so_far(tmp_path, ["lost"]) == FitResult("stopped", 0, 0, {}, (), "32", 0.0, None, ("lost",))
    train(tmp_path, leaving=after(7))
    found = so_far(tmp_path, [])
    assert (found.status, found.epochs, found.weights_file) == ("stopped", 2, "best.safetensors")
    assert found.metrics == found.history[found.best_epoch - 1]


def test_vote_of_one() -> None:
    agreed = Alone(lambda: True).agree(StepVote(8, 10, False, loss=1.5))
    assert agreed == StepVote(8, 10, False, smallest=8, loss=1.5, leave=True)


def test_a_trial_whose_workers_were_lost_has_not_failed(tmp_path: Path) -> None:
    from autodl_ray.tune import place

    class Job:
        deadline = None

        def __init__(self, stop: StopFlag) -> None:
            self.stop = stop

        def train(self, *args: Any, **options: Any) -> None:
            raise WorkerLost("gone")

    class Line(place.Line):
        def say(self, row: Mapping[str, Any]) -> Any:
            pytest.fail(f"said {row}")

    call = SimpleNamespace(looks=None)
    with pytest.raises(WorkerLost, match="gone"):
        place._train(Job(StopFlag(tmp_path / "stop")), call, Line(None))  # type: ignore[arg-type]
