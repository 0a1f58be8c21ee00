"""A configuration decides every auto and survives JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autodl_ray.augment import AugmentPolicy
from autodl_ray.errors import SpecError
from autodl_ray.images import Preprocess
from autodl_ray.models.zoo import ZOO
from autodl_ray.spec.sections import TrainSpec
from autodl_ray.train.config import FitConfig, resolve

PRE = Preprocess(224)


def config(**train: object) -> FitConfig:
    spec = TrainSpec.model_validate(train)
    entry = ZOO["efficientnet_lite0"]
    return resolve(spec, entry, preprocess=PRE, num_classes=3, weights="packaged", epochs=4, seed=7)


def test_auto_is_the_entry() -> None:
    made = config()
    entry = ZOO["efficientnet_lite0"]
    assert (made.lr, made.head_lr_factor, made.augment) == (entry.lr, entry.head_lr_factor, "light")


def test_norms_are_frozen_only_with_pretrained_weights() -> None:
    assert config().freeze_norms
    scratch = resolve(
        TrainSpec(),
        ZOO["efficientnet_lite0"],
        preprocess=PRE,
        num_classes=3,
        weights="none",
        epochs=1,
        seed=0,
    )
    assert not scratch.freeze_norms


def test_what_is_given_wins() -> None:
    made = config(lr=0.1, head_lr_factor=2.0, augment="strong", dropout=0.0)
    assert (made.lr, made.head_lr_factor, made.augment, made.dropout) == (0.1, 2.0, "strong", 0.0)


def test_a_policy_file_is_read_at_once(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("policies: [{transform: {name: Invert}, probability: 0.5}]")
    made = config(augment=str(file))
    assert str(tmp_path) not in made.augment
    wanted = AugmentPolicy.parse(str(file))
    file.unlink()  # a worker on another machine does not see it
    assert AugmentPolicy.parse(made.augment).steps == wanted.steps
    assert FitConfig.from_json(json.loads(json.dumps(made.to_json()))) == made
    with pytest.raises(SpecError, match="neither a preset nor a file"):
        config(augment=str(file))


def test_mixing_and_magnitude_are_taken_over() -> None:
    made = config(mixup=0.2, cutmix=1.0, augment="rand_augment", augment_magnitude=0.7)
    assert (made.mixup, made.cutmix, made.augment, made.augment_magnitude) == (0.2, 1.0, "rand_augment", 0.7)


def test_json_round_trip() -> None:
    made = config(lr=3e-4)
    assert FitConfig.from_json(json.loads(json.dumps(made.to_json()))) == made
