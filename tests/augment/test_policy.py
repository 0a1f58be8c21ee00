"""Policies: presets, YAML with all its mistakes, determinism, and what they make of every picture."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from autodl_ray.augment import AugmentPolicy
from autodl_ray.augment.ops.warps import RandomRotate
from autodl_ray.augment.presets import PRESETS
from autodl_ray.errors import SpecError
from autodl_ray.images import Fit, ImageArray, fit_image

ISSUE_EXAMPLE = """
policies:
  - transform:
      name: RandomRotate
      params: {degrees: [0, 90, 180, 270]}
    probability: 0.5
  - transform:
      name: ColorJitter
      params: {brightness: 0.2, contrast: 0.2, saturation: 0.2}
    probability: 0.8
"""


def noise(height: int, width: int) -> ImageArray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (192, 256), (300, 20)])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_presets_make_squares(name: str, shape: tuple[int, int], fit: Fit) -> None:
    policy, image = AugmentPolicy.parse(name), noise(*shape)
    results = [policy.apply(image, size=32, fit=fit, rng_seed=seed) for seed in (1, 1, 2, 3, 4)]
    assert all(r.shape == (32, 32, 3) and r.dtype == np.uint8 and r.flags.c_contiguous for r in results)
    assert np.array_equal(results[0], results[1])
    if name == "none":
        assert policy.is_empty
        assert all(np.array_equal(r, fit_image(image, size=32, fit=fit)) for r in results)
    elif shape != (1, 1):
        assert any(not np.array_equal(results[0], r) for r in results[2:])


def test_tiny_pictures_are_not_flipped_or_cropped() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[2:6, 2] = 255  # a mark on the left, which a flip would bring to the right
    for name in ("light", "tiny"):
        policy = AugmentPolicy.parse(name)
        results = [policy.apply(image, size=8, fit="stretch", rng_seed=seed) for seed in range(40)]
        assert all(r[:, :4].astype(int).sum() > r[:, 5:].astype(int).sum() for r in results)
    wide = np.kron(image, np.ones((16, 16, 1), dtype=np.uint8))
    light = AugmentPolicy.parse("light")
    results = [light.apply(wide, size=64, fit="stretch", rng_seed=seed) for seed in range(40)]
    assert any(r[:, :32].astype(int).sum() < r[:, 32:].astype(int).sum() for r in results)


def test_the_file_of_the_issue_works_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(ISSUE_EXAMPLE)
    policy = AugmentPolicy.parse(str(path))
    assert policy.name == "mine"
    assert [(type(s.op).__name__, s.probability) for s in policy.steps] == [("RandomRotate", 0.5), ("ColorJitter", 0.8)]
    assert policy.steps[0].op == RandomRotate(degrees=(0, 90, 180, 270))
    assert AugmentPolicy.from_document(policy.to_document(), name="mine") == policy
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert b"albumentations" not in pickle.dumps(policy)
    assert policy.apply(noise(20, 30), size=16, fit="crop", rng_seed=1).shape == (16, 16, 3)


def test_the_shipped_example_is_that_file() -> None:
    shipped = Path(__file__).parents[2] / "jobs" / "augment.yaml"
    import yaml

    assert yaml.safe_load(shipped.read_text()) == yaml.safe_load(ISSUE_EXAMPLE)
    assert len(AugmentPolicy.parse(str(shipped)).steps) == 2


def test_all_mistakes_in_one_error(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        """policies:
  - transform:
      name: RandomRotat
  - transform:
      name: ColorJitter
      params: {brightnes: 0.2, contrast: 3}
    probability: 2
  - transfrom: 3
  - transform: {name: RandomRotate, params: {degrees: many}}
  - transform: {name: RandomResizedCrop, params: {scale: [1.0, 0.5]}}
  - transform: {name: HorizontalFlip, params: [1]}
extra: 1
"""
    )
    with pytest.raises(SpecError) as caught:
        AugmentPolicy.parse(str(path))
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert "bad.yaml has 10 mistakes:" in text
    for row in (
        "policies[0].transform.name (line 3): unknown operation 'RandomRotat'; did you mean 'RandomRotate'",
        "policies[1].transform.params.brightnes (line 6): unknown parameter of ColorJitter; did you mean 'brightness'?",
        "policies[1].transform.params.contrast (line 6): must be 0 to 1: factor from 1 - value to 1 + value; got 3",
        "policies[1].probability (line 7): must be a number from 0 to 1, got 2",
        "policies[2].transfrom (line 8): unknown key; did you mean 'transform'?",
        "policies[2] (line 8): the key 'transform' is missing",
        "policies[3].transform.params.degrees (line 9): must be a number 0 to 180",
        "policies[4].transform.params.scale (line 10): must be share of the area, as [low, high] in (0, 1]; got [1.0,",
        "policies[5].transform.params (line 11): must be a mapping, got list",
        "extra (line 12): unknown key; known: policies",
    ):
        assert row in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping with policies, got NoneType"),
        ("policies: 3", "must be a list of steps, got int"),
        ("policies: [1]", r"policies\[0\] \(line 1\): must be a mapping with transform and probability, got int"),
        ("a: [", "is not valid YAML"),
        ("policies: [{transform: {name: ColorJitter, params: {hue: .nan}}}]", "hue .*0 to 0.5"),
    ],
)
def test_files_that_are_no_policy(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        AugmentPolicy.parse(str(path))


def test_neither_preset_nor_file() -> None:
    with pytest.raises(SpecError, match="neither a preset nor a file") as caught:
        AugmentPolicy.parse("lite")
    assert "did you mean 'light'?" in str(caught.value)
