"""Augmentation as a part of the search: which policy, and how strong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autodl_ray.augment import AugmentPolicy
from autodl_ray.augment.presets import PRESETS
from autodl_ray.errors import SpecError
from autodl_ray.images import Preprocess
from autodl_ray.models.zoo import ZOO
from autodl_ray.spec import parse_spec
from autodl_ray.spec.sections import AUGMENTS, ExperimentSpec
from autodl_ray.train.config import FitConfig, resolve
from autodl_ray.tune.space import draw, fingerprint


def spec_with(*choices: str) -> ExperimentSpec:
    return parse_spec(
        {
            "data": {"path": "photos"},
            "tune": {
                "param_space": {
                    "augment": {"type": "choice", "values": list(choices)},
                    "augment_magnitude": {"type": "float", "low": 0.0, "high": 1.0},
                }
            },
        }
    )


def settings_of(spec: ExperimentSpec, params: dict[str, object]) -> FitConfig:
    return resolve(
        spec.train_with(params),
        ZOO["efficientnet_lite0"],
        preprocess=Preprocess(224),
        num_classes=3,
        weights="none",
        epochs=1,
        seed=0,
    )


def policy_of(made: FitConfig) -> AugmentPolicy:
    """What the training loop makes of its configuration."""
    return AugmentPolicy.parse(made.augment, magnitude=made.augment_magnitude)


def test_a_sweep_draws_policies_and_strengths(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("policies: [{transform: {name: Invert}}]")
    ready = [name for name in PRESETS if name != "none"]
    spec = spec_with(*ready, str(file))
    rng = np.random.default_rng(0)
    drawn = [draw(spec.tune.param_space or {}, rng) for _ in range(60)]
    assert {params["augment"] for params in drawn} == {*ready, str(file)}
    assert all(0 <= params["augment_magnitude"] <= 1 for params in drawn)
    policies = {fingerprint(params): policy_of(settings_of(spec, params)) for params in drawn}
    of_ready = [made for key, made in policies.items() if "mine.yaml" not in key]
    assert len({made.digest for made in of_ready}) == len(of_ready)  # every draw is another policy
    of_file = [made for key, made in policies.items() if "mine.yaml" in key]
    assert len({made.digest for made in of_file}) == 1  # a file is done as it is written
    image = np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    pixels = {made.apply(image, size=64, fit="stretch", rng_seed=1).tobytes() for made in of_ready}
    assert len(pixels) > 0.8 * len(of_ready)


def test_a_misspelt_policy_is_found_with_the_spec() -> None:
    with pytest.raises(SpecError, match="'rand_augmnt' is neither a ready policy nor the path") as caught:
        spec_with("light", "rand_augmnt")
    assert "did you mean 'rand_augment'" in str(caught.value)


def test_a_magnitude_out_of_range_is_found_with_the_spec() -> None:
    with pytest.raises(SpecError, match="augment_magnitude"):
        parse_spec(
            {
                "data": {"path": "photos"},
                "tune": {"param_space": {"augment_magnitude": {"type": "float", "low": 0.0, "high": 3.0}}},
            }
        )


def test_the_words_of_the_spec_are_the_ready_policies() -> None:
    assert ("auto", *PRESETS) == AUGMENTS
