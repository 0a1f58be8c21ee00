"""The record of a run: what is refused, what counts, and what a larger budget changes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.errors import StoreError
from autodl_ray.pipeline.planner import Action
from autodl_ray.pipeline.record import RunRecord, identity_digest
from autodl_ray.spec import ExperimentSpec


def spec(budget: float = 60.0, lr: float = 0.01, path: str = "a/photos") -> ExperimentSpec:
    return ExperimentSpec.model_validate({"budget_s": budget, "data": {"path": path}, "train": {"lr": lr}})


def done(folder: Path) -> RunRecord:
    record = RunRecord(folder)
    with record.attempt():
        record.begin(spec(), "data1")
        record.start()
        time.sleep(0.05)
        record.end("done")
    return RunRecord(folder)


def test_seconds_count_from_the_start_and_not_for_a_look_up(tmp_path: Path) -> None:
    record = done(tmp_path)
    assert record.is_done
    spent = record.spent_s
    assert 0.05 <= spent < 5
    before = (tmp_path / "run.json").read_bytes()
    with record.attempt():
        record.begin(spec(), "data1")
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("other", "data", "said"),
    [(spec(lr=0.02), "data1", "train.lr: 0.01 → 0.02"), (spec(), "data2", "data (content, labels or splits)")],
)
def test_another_spec_or_other_data_is_refused(tmp_path: Path, other: ExperimentSpec, data: str, said: str) -> None:
    record = done(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with record.attempt(), pytest.raises(StoreError, match="A different run has this name") as error:
        record.begin(other, data)
    assert said in str(error.value)
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_larger_budget_goes_on_and_a_smaller_one_does_not(tmp_path: Path) -> None:
    record = done(tmp_path)
    record.begin(spec(budget=30.0), "data1")
    assert record.is_done
    record.begin(spec(budget=120.0), "data1")
    assert not record.is_done


def with_amounts(**changes: Any) -> ExperimentSpec:
    document = spec().model_dump()
    for key, value in changes.items():
        section, _, name = key.partition("__")
        document[section] = {**document[section], name: value} if name else value
    return ExperimentSpec.model_validate(document)


def test_more_epochs_of_a_finished_run_get_the_budget_anew(tmp_path: Path) -> None:
    record = done(tmp_path)
    record.decided(0, Action("train", "the full schedule fits", 1, 10, 40.0))
    record.begin(with_amounts(train__epochs=20), "data1")
    assert not record.is_done
    assert record.counted_s == 0.0 < record.spent_s
    assert (record.action(0) or {})["epochs"] == 20


def test_more_trials_enlarge_the_sweep_that_was_made(tmp_path: Path) -> None:
    record = done(tmp_path)
    record.decided(0, Action("sweep", "short trials fit", 8, 4, 40.0))
    record.decided(1, Action("train", "the full schedule fits", 1, 10, 40.0))
    record.begin(with_amounts(tune__num_samples=16), "data1")
    assert [(record.action(i) or {})["num_samples"] for i in (0, 1)] == [16, 1]
    record.end("done")
    record.begin(with_amounts(tune__num_samples=12), "data1")
    assert record.is_done


def test_trials_of_a_run_without_a_sweep_begin_with_one(tmp_path: Path) -> None:
    record = done(tmp_path)
    record.decided(0, Action("train", "the full schedule fits", 1, 10, 40.0))
    record.begin(with_amounts(tune__num_samples=4), "data1")
    assert record.action(0) is None


@pytest.mark.parametrize(
    "how", [{"repeat": 3}, {"disk_limit": "2GB"}, {"train__num_workers": 2}, {"train__compile": True}]
)
def test_how_much_and_how_is_no_part_of_the_identity(how: dict[str, Any]) -> None:
    assert identity_digest(with_amounts(**how), "d") == identity_digest(spec(), "d")


def test_actions_are_taken_again_in_the_same_order(tmp_path: Path) -> None:
    record = RunRecord(tmp_path)
    action = Action("sweep", "as the spec asks", 3, 2, 10.0)
    record.decided(0, action)
    again = RunRecord(tmp_path)
    assert Action(**(again.action(0) or {})) == action
    assert again.action(1) is None


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    first, second = RunRecord(tmp_path), RunRecord(tmp_path)
    with first.attempt(), pytest.raises(StoreError, match="Another process works on this run"), second.attempt():
        pass


def test_the_identity_leaves_out_budget_name_and_where_the_folder_lies() -> None:
    here, moved = identity_digest(spec(), "d"), identity_digest(spec(budget=5.0, path="b/photos"), "d")
    assert here == moved
    assert identity_digest(spec(lr=0.5), "d") != here
    assert identity_digest(spec(), "e") != here
    assert json.loads(json.dumps(here)) == here
