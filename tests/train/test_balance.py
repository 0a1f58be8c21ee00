"""Unequal classes: what weights and sampler gain, and that both belong to a training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodl_ray.data.samples import write_digits
from autodl_ray.data.sampling import class_weights
from autodl_ray.errors import SpecError, StoreError
from autodl_ray.train.config import FitConfig
from autodl_ray.train.launch import launch
from autodl_ray.train.loop import fit
from autodl_ray.train.result import FitResult
from tests.benchmarks.balance import WAYS, macro_recall, parts_of, recalls_of
from tests.train.sources import ArraySource, coloured, config_for


@pytest.mark.slow
def test_macro_recall_rises_on_a_20_to_1_set(tmp_path: Path) -> None:
    """Measured over 5 runs (tests/benchmarks/balance.py): 0.07 more in the worst of them."""
    root = write_digits(tmp_path / "digits")
    for run, rare in enumerate((8, 5, 2)):
        parts = parts_of(root, rare=rare, seed=run)
        recalls = {way: recalls_of(parts, way, seed=run, epochs=8, folder=tmp_path / f"{run} {way}") for way in WAYS}
        for way in ("weights", "sampler"):
            assert macro_recall(recalls[way]) > macro_recall(recalls["none"]) + 0.04
            assert recalls[way][rare] > recalls["none"][rare] + 0.3


def unequal() -> ArraySource:
    """Red squares are rare."""
    source = coloured(train=140)
    kept = np.flatnonzero((source.labels != 0) | (np.arange(140) % 8 == 0))
    return dataclasses.replace(source, images=source.images[kept], labels=source.labels[kept])


def weights_of(source: ArraySource) -> tuple[float, ...]:
    return tuple(class_weights(source.labels, 3))


def run(config: FitConfig, source: ArraySource, folder: Path, *, steps: int = 10**6) -> FitResult:
    left = iter(range(steps))
    return fit(
        config,
        source,
        folder=folder,
        report=lambda row: None,
        should_stop=lambda: next(left, None) is None,
        num_threads=1,
    )


@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.2}])
def test_weights_change_the_training_and_a_resumed_one_equals_the_unbroken(
    tmp_path: Path, mixing: dict[str, Any]
) -> None:
    source = unequal()
    plain = config_for(source, **mixing)
    config = dataclasses.replace(plain, class_weights=weights_of(source))
    whole = run(config, source, tmp_path / "whole")
    assert run(config, source, tmp_path / "broken", steps=4).status == "stopped"
    resumed = run(config, source, tmp_path / "broken")
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    assert run(plain, source, tmp_path / "plain").history[-1]["loss"] != whole.history[-1]["loss"]


@pytest.mark.parametrize("changes", [{"class_weights": (0.5, 0.5, 2.0)}, {"class_weights": None}, {"balanced": True}])
def test_a_training_does_not_go_on_with_other_weights(tmp_path: Path, changes: dict[str, Any]) -> None:
    source = unequal()
    config = config_for(source, class_weights=weights_of(source))
    run(config, source, tmp_path, steps=2)
    with pytest.raises(StoreError, match="another configuration") as caught:
        run(dataclasses.replace(config, **changes), source, tmp_path)
    assert next(iter(changes)) in str(caught.value)


def test_the_loop_asks_its_source_for_balanced_epochs(tmp_path: Path) -> None:
    source = unequal()
    asked: list[bool] = []

    class Asked(ArraySource):
        def train_epochs(self, *, balanced: bool = False, **options: Any) -> Any:
            asked.append(balanced)
            return super().train_epochs(balanced=balanced, **options)

    for balanced in (False, True):
        config = config_for(source, epochs=1, balanced=balanced)
        run(config, Asked(**vars(source)), tmp_path / str(balanced))
    assert asked == [False, True]


def test_weights_survive_json() -> None:
    config = config_for(coloured(), class_weights=(0.5, 1.0, 2.0), balanced=True)
    assert FitConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, -1.0, 1.0), (1.0, float("inf"), 1.0), (1.0, float("nan"), 1.0)])
def test_weights_that_do_not_fit_the_classes(weights: tuple[float, ...]) -> None:
    with pytest.raises(SpecError, match="no weights of the classes") as caught:
        config_for(coloured(), class_weights=weights)
    assert "3 finite numbers" in str(caught.value)


@pytest.mark.ray
def test_one_and_two_workers_weigh_alike(ray_cluster: object, tmp_path: Path) -> None:
    source = unequal()
    config = config_for(source, model="pixels", epochs=2, dropout=0.0, class_weights=weights_of(source))
    results = {}
    for workers in (1, 2):
        results[workers] = launch(
            config,
            source,
            folder=tmp_path / str(workers),
            num_workers=workers,
            resources_per_worker={"CPU": 0.5},
            report=lambda row: None,
            should_stop=lambda: False,
        )
    for one, two in zip(results[1].history, results[2].history, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-2)
