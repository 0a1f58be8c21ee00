"""What to do with the time left is decided by a pure function: it is tested without Ray, over many clocks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_ray.pipeline.planner import Action, Observation, decide, finish_seconds

PHOTOS = Observation(
    left_s=560,
    num_train=1768,
    num_val=328,
    num_test=431,
    infer_per_s=300,
    train_per_s=25,
    startup_s=8,
    export_s=6,
    full_epochs=12,
)
DIGITS = Observation(
    left_s=100,
    num_train=1200,
    num_val=300,
    num_test=297,
    infer_per_s=20_000,
    train_per_s=12_000,
    startup_s=5,
    export_s=2,
    full_epochs=20,
)


def test_ten_minutes_of_photos_go_into_one_training() -> None:
    action = decide(PHOTOS)
    assert action.kind == "train"
    assert action.seconds == pytest.approx(560 - finish_seconds(PHOTOS))


def test_an_hour_of_photos_holds_a_sweep_and_then_the_training() -> None:
    hour = replace(PHOTOS, left_s=7200)
    sweep = decide(hour)
    assert sweep.kind == "sweep"
    assert sweep.num_samples >= 4
    assert sweep.epochs < hour.full_epochs
    after = decide(replace(hour, left_s=7200 - (sweep.seconds or 0), swept=True, trial_epochs=sweep.epochs))
    assert (after.kind, after.reason) == ("train", "the full schedule fits")
    assert decide(replace(hour, left_s=600, swept=True, trial_epochs=4, trained=True)).kind == "finish"


def test_tiny_pictures_are_searched_with_full_trainings_and_not_trained_again() -> None:
    sweep = decide(DIGITS)
    assert (sweep.kind, sweep.epochs) == ("sweep", 20)
    assert sweep.num_samples >= 16
    assert decide(replace(DIGITS, swept=True, trial_epochs=20)).kind == "finish"


def test_time_that_is_left_makes_the_training_longer_but_only_where_it_may() -> None:
    ample = replace(PHOTOS, left_s=2000, wanted_trials=0)
    assert (decide(ample).epochs, decide(ample).reason) == (12, "the full schedule fits")
    assert decide(replace(ample, stretch=2.0)).epochs == 24
    some = decide(replace(ample, left_s=1250, stretch=2.0))
    assert 12 < some.epochs < 24
    assert some.reason == "about 16.9 epochs fit, more than the usual 12"
    assert some.epochs == 19  # a sixth more: a training shortens itself, but cannot become longer
    assert decide(replace(PHOTOS, stretch=2.0)).epochs == 12
    close = decide(replace(PHOTOS, left_s=840, wanted_trials=0, stretch=2.0))
    assert (close.epochs, close.reason) == (12, "about 11.2 of 12 epochs fit")
    assert decide(replace(PHOTOS, left_s=900, wanted_trials=0, stretch=2.0)).epochs == 13


def test_a_few_short_trials_are_not_worth_a_search() -> None:
    fashion = replace(PHOTOS, left_s=1150, num_train=51_000, num_val=9000, num_test=10_000, infer_per_s=5000)
    fashion = replace(fashion, train_per_s=1800, full_epochs=20, stretch=2.0)
    action = decide(fashion)
    assert action.kind == "train"
    assert 30 <= action.epochs <= 40
    assert decide(replace(fashion, left_s=3600)).kind == "sweep"


def test_without_time_for_training_the_quick_model_is_finished() -> None:
    action = decide(replace(PHOTOS, left_s=20))
    assert action.kind == "finish"
    assert "left" in action.reason


def test_the_spec_decides_the_number_of_trials_and_zero_means_none() -> None:
    assert decide(replace(DIGITS, wanted_trials=7)).num_samples == 7
    assert decide(replace(DIGITS, wanted_trials=0)).kind == "train"


def test_a_wish_to_stop_goes_before_everything() -> None:
    action = decide(replace(PHOTOS, stopping=True))
    assert (action.kind, action.int8) == ("finish", False)


def test_int8_is_left_out_when_it_would_eat_the_budget() -> None:
    done = replace(PHOTOS, swept=True, trained=True)
    assert decide(replace(done, left_s=60)).int8
    assert not decide(replace(done, left_s=20)).int8
    assert not decide(replace(done, with_int8=False)).int8


@given(
    left=st.floats(0, 1e5),
    train_per_s=st.floats(0.5, 1e5),
    num_train=st.integers(2, 10**6),
    full=st.integers(1, 200),
    swept=st.booleans(),
)
def test_no_action_reaches_into_the_time_kept_for_the_end(
    left: float, train_per_s: float, num_train: int, full: int, swept: bool
) -> None:
    seen = replace(PHOTOS, left_s=left, train_per_s=train_per_s, num_train=num_train, full_epochs=full, swept=swept)
    action: Action = decide(seen)
    if action.seconds is not None:
        assert 0 < action.seconds <= left - finish_seconds(seen) + 1e-6
    if action.kind == "sweep":
        assert action.num_samples >= 4
        assert 1 <= action.epochs <= max(full, 2)
