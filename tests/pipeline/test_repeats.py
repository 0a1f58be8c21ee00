"""What repeats say: the mean and its interval over trainings that are alike, and what was left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autodl_ray.pipeline.planner import decide
from autodl_ray.pipeline.repeats import fitting_repeats, summarise
from autodl_ray.pipeline.result import LeaderboardRow
from autodl_ray.tune import TrialRecord
from tests.pipeline.test_planner import PHOTOS


def first(source: str = "train", accuracy: float = 0.90, epochs: int = 4) -> LeaderboardRow:
    return LeaderboardRow(source, accuracy, accuracy, epochs, 10.0, "finished", {})


def trial(replicate: int, accuracy: float, epochs: int = 4, **more: Any) -> TrialRecord:
    metrics = {"accuracy": accuracy, "macro_f1": accuracy}
    return TrialRecord(f"t{replicate:04d}", {"replicate": replicate}, "finished", epochs, metrics, epochs, 9.0, **more)


def test_the_mean_and_its_interval_are_over_all_replicates() -> None:
    found = summarise(first(), (trial(1, 0.92), trial(2, 0.94)), metric="accuracy", wanted=3)
    assert [row["replicate"] for row in found["replicates"]] == [0, 1, 2]
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((0.92, 0.8703, 0.9697), abs=1e-4)
    assert found["line"] == "accuracy 0.9200 (0.8703 to 0.9697) over 3 seeds of train, validation split"


def test_the_interval_stays_among_the_scores_there_are() -> None:
    found = summarise(first(), (trial(1, 0.70),), metric="accuracy", wanted=2)
    assert (found["low"], found["high"]) == (0.0, 1.0)


def test_the_first_one_keeps_its_own_number() -> None:
    found = summarise(first("sweep t0001"), (trial(6, 0.92),), metric="accuracy", wanted=2, own=5)
    assert [row["replicate"] for row in found["replicates"]] == [5, 6]
    assert "; seed 5 was the best of a search" in found["line"]


def test_a_training_that_the_clock_cut_short_does_not_count() -> None:
    found = summarise(first(), (trial(1, 0.92), trial(2, 0.5, epochs=2)), metric="accuracy", wanted=3)
    assert [row["replicate"] for row in found["replicates"]] == [0, 1]


def test_one_training_has_no_interval_and_that_is_said() -> None:
    found = summarise(first(), (), metric="accuracy", wanted=3)
    assert "mean" not in found
    assert found["line"].startswith("none of 2 further trainings was done")


def test_a_seed_that_a_search_chose_is_said_to_flatter() -> None:
    found = summarise(first("sweep t0003"), (trial(1, 0.92),), metric="accuracy", wanted=2)
    assert found["chosen_by_search"]
    assert found["line"].endswith("; seed 0 was the best of a search, which flatters it")


@pytest.mark.parametrize(("seconds", "one_s", "fits"), [(100.0, 10.0, 8), (11.0, 10.0, 0), (-5.0, 10.0, 0), (1, 0, 8)])
def test_as_many_as_end_in_time(seconds: float, one_s: float, fits: int) -> None:
    assert fitting_repeats(seconds, one_s) == fits


def test_the_plan_leaves_as_much_time_for_the_others() -> None:
    alone = decide(PHOTOS)
    shared = decide(replace(PHOTOS, repeat=3))
    assert shared.kind == alone.kind == "train"
    assert shared.seconds is not None
    assert alone.seconds is not None
    assert 3 * shared.seconds == pytest.approx(alone.seconds)
