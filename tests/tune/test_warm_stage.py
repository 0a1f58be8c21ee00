"""A sweep that begins with what an earlier one of the store found, over ranges that depend on each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autodl_ray import tune
from autodl_ray.data.samples import write_digits
from autodl_ray.runtime.cluster import ClusterInfo
from autodl_ray.spec import Choice, Float, TuneSpec
from autodl_ray.tune.journal import read_journal
from tests.tune.driver import sweep_context, sweep_inputs

pytestmark = pytest.mark.ray


def test_good_settings_of_an_earlier_sweep_are_tried_first_and_remembered(
    tmp_path: Path, ray_cluster: ClusterInfo
) -> None:
    digits = write_digits(tmp_path / "d", n=200)
    space = {
        "lr": Float(low=3e-4, high=3e-2, log=True),
        "optimizer": Choice(values=("adamw", "sgd")),
        "momentum": Float(low=0.1, high=0.95, when={"optimizer": ("sgd",)}),
    }
    inputs = sweep_inputs(digits, num_samples=4, train=150, epochs=2, param_space=space)
    context = sweep_context(tmp_path)
    first = tune.run(TuneSpec(search="random", scheduler="none"), inputs, key="sweep", context=context)
    assert dict(first.trials[0].params) == {"lr": 3e-3, "optimizer": "adamw"}
    for trial in first.trials:
        assert ("momentum" in trial.params) == (trial.params["optimizer"] == "sgd")

    other = replace(context, run="other")
    spec = TuneSpec(warm_start=2, scheduler="asha_promotion", patience=1)
    warm = tune.run(spec, inputs, key="sweep", context=other)
    assert "sweep: 1 earlier sweep in the store, 2 of their settings are tried first" in context.progress.lines  # type: ignore[attr-defined]
    (event,) = [e for e in read_journal(tmp_path / "other" / "sweep.journal.jsonl") if e["event"] == "warm"]
    assert [t["params"] for t in event["sweeps"][0]["trials"]] == [dict(t.params) for t in first.trials]
    known = [dict(t.params) for t in first.trials]
    assert all(dict(params) in known for params in event["first"])
    assert warm.artifact is not None
    assert set(warm.artifact.meta["facts"]) >= {"log_samples", "log_classes"}
