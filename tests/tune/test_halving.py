"""Who goes on past a rung is a function of values alone."""

from __future__ import annotations

import math

import pytest

from autodl_ray.tune.contracts import SearchContext
from autodl_ray.tune.schedulers import Halving, make_scheduler
from autodl_ray.tune.state import SweepState


def test_rungs_are_powers_below_the_whole() -> None:
    assert Halving(1, 3, 9, "max").rungs == (1, 3)
    assert Halving(1, 3, 10, "max").rungs == (1, 3, 9)
    assert Halving(2, 4, 20, "max").rungs == (2, 8)
    assert Halving(5, 3, 5, "max").rungs == ()


@pytest.mark.parametrize(
    ("value", "others", "goes_on"),
    [
        (0.1, [], True),  # the first at a rung
        (0.1, [0.2], False),  # 1 of 2
        (0.3, [0.2], True),
        (0.2, [0.2], True),  # ties go on
        (0.5, [0.9, 0.1, 0.2], False),  # 1 of 4
        (0.5, [0.9, 0.1, 0.2, 0.3, 0.4], True),  # 2 of 6
        (0.4, [0.9, 0.1, 0.2, 0.3, 0.5], False),
        (math.nan, [0.1], False),
        (0.1, [math.nan, math.nan], True),
    ],
)
def test_the_best_third_goes_on(value: float, others: list[float], goes_on: bool) -> None:
    rule = Halving(1, 3, 9, "max")
    assert rule.goes_on(value, {str(i): v for i, v in enumerate(others)}) is goes_on
    mirrored = Halving(1, 3, 9, "min")
    assert mirrored.goes_on(-value, {str(i): -v for i, v in enumerate(others)}) is goes_on


def test_a_rung_that_was_passed_over_is_decided_late_and_once() -> None:
    rule = Halving(1, 3, 27, "max")
    assert rule.rung_of(1, []) == 1
    assert rule.rung_of(2, [1]) is None
    assert rule.rung_of(4, [1]) == 3
    assert rule.rung_of(5, [1, 3]) is None
    assert rule.rung_of(10, []) == 9


def test_the_best_value_so_far_counts_not_the_last() -> None:
    state = SweepState("accuracy", "max", make_scheduler("asha", SearchContext({}, "max", 0, 9, grace_period=3)))
    state.fold({"event": "proposed", "number": n, "params": {"n": n}} for n in range(2))
    for epoch, value in ((1, 0.5), (2, 0.5), (3, 0.5)):
        state.apply({"event": "epoch", "trial": "t0000", "metrics": {"epoch": epoch, "accuracy": value}})
    for epoch, value in ((1, 0.9), (2, 0.2), (3, 0.1)):
        state.apply({"event": "epoch", "trial": "t0001", "metrics": {"epoch": epoch, "accuracy": value}})
    assert state.verdicts == {}
    best = state.best()
    assert best is not None
    assert (best.id, state.best_row(best)) == ("t0001", {"epoch": 1, "accuracy": 0.9})
