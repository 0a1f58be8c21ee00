"""Warm starts: what is read from a store, what a portfolio holds, and what a search gains from it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodl_ray.artifacts import Store
from autodl_ray.spec.domains import Choice, Float, Int
from autodl_ray.tune.contracts import EarlierSweep, Observed, SearchContext
from autodl_ray.tune.curves.similar import most_similar, setting_here, similarity
from autodl_ray.tune.space import fingerprint, is_inside
from autodl_ray.tune.warm import PortfolioProposer, earlier_sweeps, facts_of, portfolio
from tests.tune.curves.curves import MIXED, run

SPACE = {"lr": Float(low=1e-4, high=1.0, log=True), "batch_size": Int(low=8, high=256, log=True)}


def _value(lr: float, best: float, epoch: int) -> float:
    return (1 - abs(math.log10(lr / best)) / 4) * (1 - 0.5**epoch)


def _sweep(name: str, best: float, facts: Mapping[str, float] | None = None) -> EarlierSweep:
    """Twelve whole trials over lr, of which the one nearest to ``best`` wins."""
    trials = []
    for number, lr in enumerate(np.geomspace(1e-4, 1.0, 12)):
        values = tuple((e, _value(float(lr), best, e)) for e in range(1, 7))
        trials.append(Observed(number, {"lr": float(lr), "batch_size": 32}, "finished", values, values[-1][1]))
    return EarlierSweep(name, facts or {}, "max", 6, tuple(trials))


def _store(folder: Path) -> Store:
    """A store with a good sweep, a training, a sweep whose trials are gone, and one of a foreign hand."""
    store = Store(folder)
    rows = [
        {
            "id": f"t{n:04d}",
            "params": {"lr": lr},
            "status": status,
            "curve": [{"epoch": e, "accuracy": lr * e} for e in epochs],
        }
        for n, (lr, status, epochs) in enumerate(
            [(0.1, "finished", (1, 2, 3)), (0.01, "stopped", (1,)), (0.5, "lost", ())]
        )
    ]
    whole = {"metric": "accuracy", "mode": "max", "epochs": 4, "facts": {"log_samples": 3.0}}
    for key, kind, meta, text in (
        ("a/sweep", "sweep", whole, json.dumps(rows)),
        ("a/train", "training", whole, json.dumps(rows)),
        ("b/sweep", "sweep", whole, "[{"),
        ("c/sweep", "sweep", {}, json.dumps(rows)),
    ):
        with store.write(key, kind=kind, spec_digest="", inputs={}, seed=0, meta=meta) as writer:  # type: ignore[arg-type]
            (writer.path / "trials.json").write_text(text)
    (folder / "d" / "sweep").mkdir(parents=True)
    (folder / "d" / "sweep" / "manifest.json").write_text("{}")
    return store


def test_finished_sweeps_are_read_and_damaged_ones_are_named(tmp_path: Path) -> None:
    notes: list[str] = []
    found = earlier_sweeps(_store(tmp_path), say=notes.append)
    assert [(s.name, s.mode, s.epochs, dict(s.facts)) for s in found] == [("a/sweep", "max", 4, {"log_samples": 3.0})]
    assert [(t.status, t.epochs, t.value) for t in found[0].trials] == [
        ("finished", 3, pytest.approx(0.3)),
        ("stopped", 1, pytest.approx(0.01)),
        ("failed", 0, None),
    ]
    assert [note.split(" is passed over as a warm start: ")[0] for note in notes] == ["b/sweep", "c/sweep", "d/sweep"]


def test_the_sweep_that_is_about_to_begin_is_no_earlier_one(tmp_path: Path) -> None:
    store = _store(tmp_path)
    assert earlier_sweeps(store, without="a/sweep") == ()
    assert earlier_sweeps(Store(tmp_path / "empty")) == ()


def test_facts_are_powers_of_ten() -> None:
    facts = facts_of(np.array([0] * 90 + [1] * 10), num_classes=2, image_size=100)
    assert facts == pytest.approx(
        {"log_samples": 2.0, "log_classes": math.log10(2), "log_image_size": 2.0, "log_imbalance": math.log10(1.8)}
    )
    assert similarity(facts, facts) == 1.0
    assert similarity(facts, {**facts, "log_samples": 3.0}) == pytest.approx(math.exp(-0.5))


def test_only_sweeps_over_fields_that_are_searched_count_the_most_similar_first() -> None:
    near, far = _sweep("near", 0.01, {"log_samples": 3.0}), _sweep("far", 0.01, {"log_samples": 6.0})
    foreign = EarlierSweep(
        "foreign", {}, "max", 6, tuple(Observed(n, {"depth": n}, "finished", ((1, 0.1),), 0.1) for n in range(5))
    )
    context = SearchContext(SPACE, "max", 0, 6, earlier=(far, foreign, near), facts={"log_samples": 3.1})
    assert [s.name for s in most_similar(context, 9)] == ["near", "far"]


def test_settings_of_another_sweep_are_made_to_fit() -> None:
    space = {**SPACE, "optimizer": Choice(values=("adamw", "sgd")), "momentum": MIXED["momentum"]}
    context = SearchContext(space, "max", 0, 6, baseline={"optimizer": "sgd", "momentum": 0.9})
    made = setting_here(context, {"lr": 50.0, "batch_size": 4, "depth": 3})
    assert made == {"lr": 1.0, "batch_size": 8, "optimizer": "sgd", "momentum": 0.9}
    assert is_inside(space, made)


def test_a_portfolio_covers_what_was_best_and_similar_data_come_first() -> None:
    sweeps = (_sweep("a", 1e-3, {"log_samples": 2.0}), _sweep("b", 0.1, {"log_samples": 6.0}))
    context = SearchContext(SPACE, "max", 0, 6, earlier=sweeps, facts={"log_samples": 2.0})
    first, second = portfolio(context, 2)
    assert _value(first["lr"], 1e-3, 6) > 0.9
    assert _value(second["lr"], 0.1, 6) > 0.9
    other = SearchContext(SPACE, "max", 0, 6, earlier=sweeps, facts={"log_samples": 6.0})
    assert _value(portfolio(other, 1)[0]["lr"], 0.1, 6) > 0.9
    assert portfolio(SearchContext(SPACE, "max", 0, 6), 3) == []


def test_the_portfolio_is_tried_first_and_then_curves() -> None:
    context = SearchContext(
        SPACE, "max", 0, 6, num_samples=14, earlier=tuple(_sweep(str(b), b) for b in (0.003, 0.01, 0.03))
    )

    def value(params: Mapping[str, Any], epoch: int) -> float:
        return _value(params["lr"], 0.01, epoch)

    state, _ = run(context, value, search="portfolio")
    cold, _ = run(context, value, search="random")
    tried = [t.params for t in state.trials.values()]
    assert tried[:3] == portfolio(context, 3)
    assert len({fingerprint(p) for p in tried}) == 14
    assert max(value(p, 6) for p in tried[:2]) > max(value(t.params, 6) for t in list(cold.trials.values())[:2])


def test_without_earlier_sweeps_a_portfolio_is_curves() -> None:
    context = SearchContext(SPACE, "max", 0, 6, num_samples=8)
    curves, _ = run(context, lambda p, e: _value(p["lr"], 0.01, e))
    empty, _ = run(context, lambda p, e: _value(p["lr"], 0.01, e), search="portfolio")
    assert [t.params for t in empty.trials.values()] == [t.params for t in curves.trials.values()]


def test_a_portfolio_proposes_the_same_again() -> None:
    context = SearchContext(SPACE, "max", 0, 6, earlier=(_sweep("a", 0.01),))
    history = [Observed(0, {"lr": 0.5, "batch_size": 9}, "running", (), None)]
    assert PortfolioProposer(context).propose(1, 0, history) == PortfolioProposer(context).propose(1, 0, history)
