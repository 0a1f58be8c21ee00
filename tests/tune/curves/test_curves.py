"""The strategy and schedulers of the model of curves: late winners, resuming, conditions, pending trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autodl_ray.spec.domains import Choice, Float
from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.curves import CurveProposer, CurveStop, FreezeThaw
from autodl_ray.tune.curves.beliefs import Believer, legs_of
from autodl_ray.tune.space import fingerprint, is_inside
from tests.tune.curves.curves import MIXED, run

SPEEDS = {"speed": Float(low=0.0, high=1.2)}


def _late(params: Mapping[str, Any], epoch: int) -> float:
    """The slower the rise, the higher the end: fast trials lead for a third of the epochs, and lose by half."""
    speed = float(params["speed"]) / 1.2
    return (0.5 + 0.5 * (1 - speed)) * (1 - math.exp(-epoch * (0.06 + speed)))


def _smooth(params: Mapping[str, Any], epoch: int) -> float:
    distance = abs(math.log10(params["lr"]) + 2) / 4 + abs(math.log2(params["batch_size"]) - 5) / 10
    distance += 0.1 * (params["optimizer"] == "sgd") * (2 - params.get("momentum", 0.0))
    return (1 - distance) * (1 - 0.5**epoch)


def test_legs_halve_the_trial_and_keep_the_grace_period() -> None:
    assert legs_of(50, 1) == (3, 6, 12, 25, 50)
    assert legs_of(50, 5) == (6, 12, 25, 50)
    assert legs_of(12, 1) == (3, 6, 12), "the first two epochs say little"
    assert legs_of(5, 1) == (5,)
    assert legs_of(1, 3) == (1,)


def test_a_late_winner_is_found_by_freeze_thaw_and_not_by_halving() -> None:
    best = {}
    for scheduler in ("asha", "freeze_thaw"):
        found = []
        for seed in range(3):
            context = SearchContext(SPEEDS, "max", seed, 50, num_samples=16)
            state, _ = run(context, _late, search="random", scheduler=scheduler)
            reachable = max(_late(t.params, 50) for t in state.trials.values())
            top = state.best()
            assert top is not None
            found.append((state.value(top) or 0.0) / reachable)
        best[scheduler] = found
    assert min(best["freeze_thaw"]) > 0.99
    assert np.mean(best["asha"]) < 0.97


@pytest.mark.parametrize("search", ["curves", "random"])
def test_a_sweep_that_was_killed_goes_on_as_if_it_had_not(search: str) -> None:
    context = SearchContext(MIXED, "max", 3, 9, num_samples=9)
    _, whole = run(context, _smooth, search=search)
    for cut in (1, len(whole) // 3, len(whole) // 2 + 1, len(whole) - 2):
        _, begun = run(context, _smooth, search=search, stop_after=cut)
        _, resumed = run(context, _smooth, search=search, events=begun)
        assert resumed == whole


def test_a_sweep_finds_more_than_random_search_for_less() -> None:
    best, epochs = {"curves": 0.0, "random": 0.0}, {"curves": 0, "random": 0}
    for seed in (1, 2):
        context = SearchContext(MIXED, "max", seed, 20, num_samples=20)
        for search, scheduler in (("curves", "freeze_thaw"), ("random", "none")):
            state, _ = run(context, _smooth, search=search, scheduler=scheduler)
            best[search] += max(state.value(t) or 0.0 for t in state.trials.values())
            epochs[search] += sum(t.epochs for t in state.trials.values())
    assert best["curves"] > best["random"]
    assert epochs["curves"] < 0.7 * epochs["random"]


def test_settings_of_a_conditional_space_are_inside_it_and_distinct() -> None:
    context = SearchContext(MIXED, "max", 1, 6, num_samples=24)
    state, _ = run(context, _smooth, scheduler="curve_stop")
    params = [t.params for t in state.trials.values()]
    assert len({fingerprint(p) for p in params}) == len(params) == 24
    assert all(is_inside(MIXED, p) for p in params)
    assert {"momentum" in p for p in params} == {True, False}


def test_a_small_space_is_tried_to_its_end() -> None:
    space = {"optimizer": Choice(values=("adamw", "sgd")), "freeze": Choice(values=(True, False, "half"))}
    context = SearchContext(space, "max", 0, 4, num_samples=50)
    state, _ = run(context, lambda p, e: e * (1 + (p["optimizer"] == "sgd")), scheduler="none")
    assert len(state.trials) == 6


def test_a_metric_that_falls_is_searched_downwards() -> None:
    context = SearchContext(MIXED, "min", 0, 9, num_samples=25)
    state, _ = run(context, lambda p, e: 1 - _smooth(p, e))
    first = min(state.value(t) or 1.0 for t in list(state.trials.values())[:5])
    best = state.best()
    assert best is not None
    assert (state.value(best) or 1.0) < first


def test_losses_that_are_infinite_do_no_harm() -> None:
    context = SearchContext(MIXED, "min", 0, 4, num_samples=12)
    state, _ = run(context, lambda p, e: math.inf if p["lr"] > 0.1 else 1 - _smooth(p, e))
    best = state.best()
    assert best is not None
    assert math.isfinite(state.value(best) or math.inf)


def _history(count: int, **last: Any) -> list[Observed]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        speed = float(rng.uniform())
        values = tuple((e, _late({"speed": speed}, e)) for e in (1, 2, 3))
        found.append(Observed(number, {"speed": speed}, "paused", values, values[-1][1]))
    return [*found[:-1], replace(found[-1], **last)]


def test_a_trial_that_is_running_is_not_proposed_again_by_another_worker() -> None:
    context = SearchContext(SPEEDS, "max", 0, 50)
    history = _history(8)
    first = CurveProposer(context).propose(8, 0, history)
    running = [*history, Observed(8, first, "running", (), None)]
    believer = Believer(context)
    idle, busy = believer.of(history), Believer(context).of(running)
    assert idle is not None
    assert busy is not None
    point = believer.encoding.encode_all([first])
    assert busy.of_settings(point)[1][0] < idle.of_settings(point)[1][0]
    assert CurveProposer(context).propose(9, 0, running) != first


def test_freeze_thaw_pauses_at_ends_of_legs_only() -> None:
    scheduler = FreezeThaw(SearchContext(SPEEDS, "max", 0, 50))
    history = _history(4)
    assert scheduler.report(history[0], history).kind == "pause"
    early = replace(history[0], values=history[0].values[:2])
    assert scheduler.report(early, history).kind == "go_on"


def test_freeze_thaw_without_new_settings_goes_on_with_what_is_paused() -> None:
    scheduler = FreezeThaw(SearchContext(SPEEDS, "max", 0, 50))
    assert scheduler.thaw(_history(2), lambda: None) == 0  # too little is known to choose
    assert scheduler.thaw(_history(8), lambda: None) in range(8)
    finished = [replace(t, status="finished") for t in _history(8)]
    assert scheduler.thaw(finished, lambda: None) is None


def test_curve_stops_what_cannot_win_and_says_so() -> None:
    scheduler = CurveStop(SearchContext(SPEEDS, "max", 0, 50))
    whole = [
        Observed(n, {"speed": s}, "finished", tuple((e, s * (1 - 0.7**e)) for e in range(1, 51)), s)
        for n, s in enumerate((0.99, 0.95, 0.9, 0.5, 0.4, 0.3))
    ]
    poor = Observed(6, {"speed": 0.1}, "running", tuple((e, 0.1 * (1 - 0.7**e)) for e in range(1, 13)), 0.1)
    good = Observed(6, {"speed": 1.2}, "running", tuple((e, 1.2 * (1 - 0.7**e)) for e in range(1, 4)), 0.8)
    verdict = scheduler.report(poor, [*whole, poor])
    assert verdict.kind == "stop"
    assert verdict.reason.startswith("its chance to become the best was ")
    assert scheduler.report(good, [*whole, good]).kind == "go_on"
    assert scheduler.report(poor, [replace(t, status="stopped") for t in whole]).kind == "go_on"


def test_a_decision_costs_the_same_however_many_trials_there_are() -> None:
    believer = Believer(SearchContext(SPEEDS, "max", 0, 50))
    beliefs = believer.of(_history(1000))
    assert beliefs is not None
    assert len(beliefs.surface.alpha) <= 300
