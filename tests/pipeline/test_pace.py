"""The pace that the plan begins with: measured on the network itself, with nothing changed by it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from autodl_ray.models.zoo import choose, with_recipe
from autodl_ray.pipeline.pace import Pace, measure_pace
from autodl_ray.pipeline.screening import Network
from autodl_ray.pipeline.state import Run
from autodl_ray.spec import ModelSpec, TrainSpec


def pace_of(name: str, side: int, **train: Any) -> Pace:
    network = Network(*choose(ModelSpec(name=name, image_size=side), (side, side)))
    spec = SimpleNamespace(train=with_recipe(TrainSpec(**train), network.entry), seed=0)
    run = SimpleNamespace(spec=spec, network=network, version=SimpleNamespace(num_classes=3))
    return measure_pace(cast(Run, run))


def test_a_larger_network_is_slower() -> None:
    small, large = pace_of("small_cnn", 16), pace_of("small_resnet", 16)
    assert 0 < large.train_per_s < small.train_per_s
    assert 0 < large.infer_per_s < small.infer_per_s


def test_the_wanted_precision_is_the_one_that_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a precision was given, so none is chosen")

    monkeypatch.setattr("autodl_ray.train.precision.choose_precision", never)
    assert pace_of("small_cnn", 8, precision="32").train_per_s > 0
    with pytest.raises(AssertionError, match="none is chosen"):
        pace_of("small_cnn", 8)


def test_measuring_leaves_the_random_state_and_the_threads_alone() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    pace_of("pixels", 8)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
