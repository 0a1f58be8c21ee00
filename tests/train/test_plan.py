"""Planning is pure: how many steps fit, and the learning rate of each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_ray.train.plan import Pace, extended_position, least_steps, lr_factor, plan_steps, steps_per_epoch


def test_all_wanted_epochs_when_there_is_time() -> None:
    assert plan_steps(time_left_s=1e6, step_s=1, eval_s=5, epoch_steps=50, done=0, wanted=500) == 500


def test_a_part_of_an_epoch_when_there_is_little_time() -> None:
    # 41 s: 1 s to write, 5 s to validate, so 35 steps of one second.
    assert plan_steps(time_left_s=41, step_s=1, eval_s=5, epoch_steps=50, done=0, wanted=500) == 35


def test_every_epoch_pays_its_validation() -> None:
    # 2 x (50 + 5) s, then 30 s that pay one more validation and 25 steps.
    assert plan_steps(time_left_s=1 + 110 + 30, step_s=1, eval_s=5, epoch_steps=50, done=0, wanted=500) == 125


def test_a_sliver_after_whole_epochs_is_left_out() -> None:
    assert plan_steps(time_left_s=1 + 110 + 9, step_s=1, eval_s=5, epoch_steps=50, done=0, wanted=500) == 100


def test_the_rest_of_a_started_epoch_counts() -> None:
    assert plan_steps(time_left_s=16, step_s=1, eval_s=5, epoch_steps=50, done=45, wanted=500) == 50


def test_no_step_when_time_is_up() -> None:
    assert plan_steps(time_left_s=-3, step_s=1, eval_s=5, epoch_steps=50, done=7, wanted=500) == 7


@given(
    time_left_s=st.floats(-10, 1000),
    step_s=st.floats(0.001, 20),
    eval_s=st.floats(0, 50),
    epoch_steps=st.integers(1, 200),
    done=st.integers(0, 300),
    wanted=st.integers(300, 2000),
)
def test_what_is_planned_fits(
    time_left_s: float, step_s: float, eval_s: float, epoch_steps: int, done: int, wanted: int
) -> None:
    total = plan_steps(
        time_left_s=time_left_s, step_s=step_s, eval_s=eval_s, epoch_steps=epoch_steps, done=done, wanted=wanted
    )
    assert done <= total <= wanted
    if total > done:
        validations = -(-total // epoch_steps) - done // epoch_steps
        assert (total - done) * step_s + validations * eval_s <= time_left_s


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_schedules_fall_to_nothing(schedule: str) -> None:
    factors = [lr_factor(schedule, p / 100) for p in range(101)]  # type: ignore[arg-type]
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] < 0.001
    peak = factors.index(max(factors))
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert peak == 20
    assert lr_factor(schedule, 0.0, warmup=0.0) == 1.0  # type: ignore[arg-type]


def test_one_cycle_starts_low_and_constant_stays() -> None:
    assert lr_factor("one_cycle", 0.0) == pytest.approx(0.04)
    assert lr_factor("constant", 0.7) == 1.0
    assert lr_factor("constant", 0.1) == lr_factor("cosine", 0.1) == pytest.approx(0.505)


def test_more_epochs_go_on_as_if_they_had_been_planned() -> None:
    assert extended_position(1.0, planned=100, wanted=200) == 0.5
    assert extended_position(0.5, planned=100, wanted=200) == 0.25
    assert extended_position(0.5, planned=100, wanted=50) == 0.5


def test_short_last_batch_is_a_step() -> None:
    assert steps_per_epoch(70, 32) == 3
    assert steps_per_epoch(5, 32) == 1


def test_pace_forgets_the_first_step_and_guesses_the_first_validation() -> None:
    pace = Pace(eval_guess_steps=3)
    assert pace.step_s() is None
    pace.steps.append(9.0)
    assert pace.step_s() is None
    pace.steps.extend([1.0, 1.0])
    assert pace.step_s() == 1.0
    assert pace.eval_s() == 3.0
    pace.evals.append(2.0)
    assert pace.eval_s() == 2.0


def test_one_step_that_was_held_up_does_not_count_for_all_of_few() -> None:
    pace = Pace(eval_guess_steps=3)
    pace.steps.extend([37.0, 30.0, 0.3, 0.3, 0.3])
    assert pace.step_s() == pytest.approx(0.3)
    assert not pace.is_sure
    pace.steps.append(0.3)
    assert pace.is_sure
    pace.steps.extend([1.3, 0.3] * 3)  # a batch that is waited for, now and then, counts from ten steps on
    assert pace.step_s() == pytest.approx((30.0 + 0.3 * 4 + 3 * 1.6) / 11)


def test_few_steps_do_not_end_a_training_within_its_epoch() -> None:
    facts = {"epoch_steps": 50, "done": 2, "wanted": 500}
    assert plan_steps(time_left_s=60, step_s=8.0, eval_s=80.0, **facts) == 2
    assert least_steps(time_left_s=60, step_s=8.0, **facts) == 50
    assert least_steps(time_left_s=60, step_s=8.0, epoch_steps=50, done=2, wanted=20) == 20
    assert least_steps(time_left_s=60, step_s=8.0, epoch_steps=50, done=100, wanted=500) == 150  # resumed
    assert least_steps(time_left_s=8.9, step_s=8.0, **facts) == 2  # not one more fits
    assert least_steps(time_left_s=-1, step_s=0.1, **facts) == 2
