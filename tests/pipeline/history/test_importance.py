"""Importance: the setting that decides comes first, conditions are kept, and few trials are said to be few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autodl_ray.errors import StageError
from autodl_ray.pipeline.history import SweepHistory, read_sweep
from autodl_ray.pipeline.history.importance import METHODS, importance
from tests.pipeline.history.made import trials_of, write_journal


def sweep(folder: Path, number: int) -> SweepHistory:
    write_journal(folder, "sweep", trials_of(number))
    found = read_sweep(folder, "sweep")
    assert found is not None
    return found


@pytest.mark.parametrize("method", list(METHODS))
def test_the_setting_that_decides_comes_first(tmp_path: Path, method: Any) -> None:
    report = importance(sweep(tmp_path, 48), method=method, resamples=6)
    assert report.rows[0].name == "lr"
    assert report.rows[0].value > 0.6
    assert report.rows[0].low <= report.rows[0].value <= report.rows[0].high
    assert (report.trials, report.early) == (48, 12)


def test_a_conditional_setting_is_judged_among_the_trials_that_have_it(tmp_path: Path) -> None:
    trials = sweep(tmp_path, 48)
    report = importance(trials, resamples=0)
    row = next(row for row in report.rows if row.name == "momentum")
    assert row.when == {"optimizer": ["sgd"]}
    assert row.trials == sum("momentum" in t.params for t in trials.trials) < 48
    assert {row.name for row in report.rows} == {"lr", "optimizer", "momentum"}


def test_few_trials_are_said_to_be_few_and_too_few_are_refused(tmp_path: Path) -> None:
    report = importance(sweep(tmp_path / "a", 8), resamples=6)
    assert any("8 trials are few" in note for note in report.notes)
    assert any("2 of 8 trials were stopped early" in note for note in report.notes)
    with pytest.raises(StageError, match="too few trials") as found:
        importance(sweep(tmp_path / "b", 4))
    assert found.value.seen is not None
    assert found.value.seen.startswith("4 trials with a value")
    assert "--num-samples" in (found.value.hint or "")


def test_trials_may_be_compared_at_the_same_epoch(tmp_path: Path) -> None:
    trials = sweep(tmp_path, 24)
    report = importance(trials, at_epoch=1, resamples=0)
    assert (report.trials, report.early) == (24, 0)
    assert importance(trials, at_epoch=2, resamples=0).trials == 18


def test_the_same_seed_gives_the_same_answer(tmp_path: Path) -> None:
    trials = sweep(tmp_path, 16)
    assert importance(trials, resamples=6, seed=1) == importance(trials, resamples=6, seed=1)
