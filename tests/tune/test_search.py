"""What ``auto`` searches with, what a sweep's identity holds, and that a warm start needs its store once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.spec import Float, TuneSpec
from autodl_ray.tune.contracts import EarlierSweep, Observed
from autodl_ray.tune.search import earlier_from, needs_earlier, resolve_search, warm_event
from autodl_ray.tune.state import SweepState

SPACE = {"lr": Float(low=1e-4, high=1.0, log=True)}


@pytest.mark.parametrize(
    ("spec", "single", "expected"),
    [
        ({}, False, ("curves", "freeze_thaw")),
        ({}, True, ("random", "none")),
        ({"search": "random"}, False, ("random", "freeze_thaw")),
        ({"scheduler": "median"}, False, ("curves", "median")),
        ({"search": "grid"}, False, ("grid", "none")),
        ({"search": "one_factor", "scheduler": "asha"}, False, ("one_factor", "asha")),
    ],
)
def test_auto_is_decided_in_one_place(spec: dict[str, Any], single: bool, expected: tuple[str, str]) -> None:
    assert resolve_search(TuneSpec(**spec), SPACE, single=single) == expected


def test_a_journal_remembers_what_was_taken_from_the_store() -> None:
    trials = (
        Observed(0, {"lr": 0.1}, "finished", ((1, 0.5), (2, 0.7)), 0.7),
        Observed(1, {"lr": 0.2}, "failed", (), None),
    )
    sweep = EarlierSweep("old/sweep", {"log_samples": 3.0}, "max", 2, trials)
    event = json.loads(json.dumps(warm_event((sweep,), ({"lr": 0.1},))))
    assert earlier_from([{"event": "begun"}, event]) == ((sweep,), ({"lr": 0.1},))
    assert earlier_from([{"event": "begun"}]) == ((), ())
    assert SweepState("accuracy", "max", None).fold([event]).trials == {}
    assert needs_earlier(TuneSpec(warm_start=3))
    assert needs_earlier(TuneSpec(search="portfolio"))
    assert not needs_earlier(TuneSpec())


def test_of_equal_checkpoints_the_cheaper_one_is_best_then_the_earlier_trial() -> None:
    state = SweepState("accuracy", "max", None)
    state.fold({"event": "proposed", "number": n, "params": {"n": n}} for n in range(3))

    def report(number: int, epoch: int, accuracy: float) -> None:
        state.apply({"event": "epoch", "trial": f"t{number:04d}", "metrics": {"epoch": epoch, "accuracy": accuracy}})

    report(1, 1, 0.5)
    report(1, 2, 0.8)
    report(0, 2, 0.8)
    report(0, 1, 0.8)  # made again, and reported late
    best = state.best()
    assert best is not None
    assert best.number == 0
    report(2, 1, 0.8)
    assert state.best() is best


def test_the_identity_holds_what_decides_a_result_and_nothing_else(tmp_path: Path) -> None:
    from autodl_ray.spec import TrainSpec
    from autodl_ray.tune.identity import sweep_identity
    from tests.tune.inputs import plain_inputs

    def identity(train: dict[str, Any] | None = None, **tune: Any) -> dict[str, Any]:
        return sweep_identity(TuneSpec(**tune), plain_inputs(base=TrainSpec(**(train or {}))), 0)

    plain = identity()
    for same in ({"num_workers": 2}, {"compile": True}, {"checkpoint_every_s": 5.0}, {"keep_checkpoints": 3}):
        assert identity(same) == plain
    assert identity(num_samples=7, max_concurrent_trials=1, target=0.9, plateau=3) == plain
    assert identity(metric="accuracy") == plain
    for other in ({"lr": 0.1}, {"replicate": 1}, {"freeze": "backbone"}):
        assert identity(other) != plain
    assert identity(search="random") != plain
    assert identity(patience=3) != plain
