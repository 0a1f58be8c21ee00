"""AutoAugment, RandAugment, TrivialAugment, AugMix: their tables, their strength, grey and colour pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodl_ray.augment import CATALOGUE, AugmentPolicy
from autodl_ray.augment.nodes import Blend, Chain, Node, OneOf, Ready, SomeOf, Step
from autodl_ray.augment.presets import PRESETS
from autodl_ray.augment.ready import READY, AutoAugment, RandAugment, TrivialAugment
from autodl_ray.errors import SpecError
from autodl_ray.images import ImageArray, decode_image

PUBLISHED = ("auto_augment", "rand_augment", "trivial_augment", "augmix")


def picture(mode: str, side: int) -> ImageArray:
    """A photo-like gradient with shapes, saved with 1 or 3 channels and decoded as training does."""
    y, x = np.mgrid[0:side, 0:side] / side
    pixels = np.stack([255 * x, 255 * y, 128 + 100 * np.sin(9 * x * y)], axis=2).astype(np.uint8)
    pixels[side // 4 : side // 2, side // 4 : side // 2] = (200, 40, 90)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
    return decode_image(buffer.getvalue())


def operations(nodes: tuple[Node, ...]) -> Iterator[Step]:
    for node in nodes:
        if isinstance(node, Step):
            yield node
        else:
            yield from operations(node.choices if isinstance(node, OneOf) else getattr(node, "steps", ()))


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("side", [28, 160])
def test_each_runs_on_grey_and_colour(name: str, mode: str, side: int) -> None:
    image = picture(mode, side)
    policy = AugmentPolicy.parse(name)
    made = [policy.apply(image, size=32, fit="stretch", rng_seed=seed) for seed in range(60)]
    assert all(one.shape == (32, 32, 3) and one.dtype == np.uint8 for one in made)
    different = len({one.tobytes() for one in made})
    assert different == 1 if name == "none" else different > 20
    if mode == "L" and name in PUBLISHED:
        assert all((one[..., 0] == one[..., 2]).all() for one in made)  # no colour comes from nowhere


@pytest.mark.parametrize("name", PUBLISHED)
def test_photos_are_cropped_and_flipped_before_and_tiny_pictures_shifted(name: str) -> None:
    policy = AugmentPolicy.parse(name)
    assert policy.tiny_steps is not None
    photo, tiny = ([type(s.op).__name__ if isinstance(s, Step) else "ready" for s in steps]
                   for steps in (policy.steps, policy.tiny_steps))  # fmt: skip
    assert photo == ["RandomResizedCrop", "HorizontalFlip", "ready"]
    assert tiny == ["RandomShift", "ready"]
    assert policy.steps[-1] == Ready(READY[name]())
    assert "Flip" not in str(policy.tiny_steps)


def test_auto_augment_has_its_25_pairs() -> None:
    (one,) = AutoAugment().nodes()
    assert isinstance(one, OneOf)
    assert len(one.choices) == 25
    assert set(one.weights) == {1.0}
    assert all(isinstance(pair, Chain) and len(pair.steps) == 2 for pair in one.choices)
    first = list(operations(one.choices[:1]))
    assert (type(first[0].op).__name__, first[0].op.model_dump(), first[0].probability) == (
        "Posterize", {"bits": (4, 4)}, 0.4)  # fmt: skip
    turns = [step.op.model_dump()["degrees"] for step in first[1:]]
    assert turns == [(30.0, 30.0), (-30.0, -30.0)]
    used = {type(step.op).__name__ for step in operations(one.choices)}
    assert used == {"Posterize", "Rotate", "Solarize", "AutoContrast", "Equalize", "Saturation", "Invert", "Contrast",
                    "Sharpness", "ShearX"}  # fmt: skip


def test_rand_augment_takes_num_ops_of_14_at_one_magnitude() -> None:
    (some,) = RandAugment(num_ops=3, magnitude=15).nodes()
    assert isinstance(some, SomeOf)
    assert (some.low, some.high, some.replace, len(some.steps)) == (3, 3, True, 14)
    turns = [s.op.model_dump()["degrees"] for s in operations(some.steps) if type(s.op).__name__ == "Rotate"]
    assert turns == [(15.0, 15.0), (-15.0, -15.0)]
    solar = [s.op.model_dump() for s in operations(some.steps) if type(s.op).__name__ == "Solarize"]
    assert solar == [{"threshold": (128, 128)}]


def test_trivial_augment_takes_one_of_14_from_the_wide_space() -> None:
    (one,) = TrivialAugment().nodes()
    assert isinstance(one, OneOf)
    assert len(one.choices) == 14
    params: dict[str, dict[str, Any]] = {type(s.op).__name__: s.op.model_dump() for s in operations(one.choices)}
    assert params["Rotate"]["degrees"] == (-135.0, 135.0)
    assert params["Posterize"]["bits"] == (2, 8)
    assert params["Brightness"]["factor"] == pytest.approx((0.01, 1.99))
    assert params["ShearX"]["degrees"][1] == pytest.approx(44.7, abs=0.1)


def test_a_blend_of_copies_is_the_picture() -> None:
    image = picture("RGB", 40)
    for alpha in (0.1, 1.0, 10.0):
        same = AugmentPolicy("same", (Blend((Chain(()),), width=4, alpha=alpha),))
        for seed in range(20):
            done = same.apply(image, size=40, fit="stretch", rng_seed=seed)
            assert np.abs(done.astype(int) - image).max() <= 1


def test_a_blend_lies_between_the_picture_and_its_changed_copies() -> None:
    image = np.full((8, 8, 3), 200, dtype=np.uint8)
    half = Step(CATALOGUE["Brightness"](factor=(0.5, 0.5)))  # type: ignore[call-arg]
    made = AugmentPolicy("half", (Blend((half,), depth=(1, 1)),))
    values = [int(made.apply(image, size=8, fit="stretch", rng_seed=seed)[0, 0, 0]) for seed in range(300)]
    assert 100 <= min(values) < 110
    assert 190 < max(values) <= 200
    assert np.mean(values) == pytest.approx(150, abs=6)  # Beta(1, 1) is even


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "none"])
def test_the_magnitude_is_a_strength(name: str) -> None:
    image = picture("RGB", 160)
    assert AugmentPolicy.parse(name, magnitude=0.5) == AugmentPolicy.parse(name)

    def change(magnitude: float) -> float:
        policy = AugmentPolicy.parse(name, magnitude=magnitude)
        steps = tuple(s for s in policy.steps if isinstance(s, Ready)) or policy.steps
        alone = AugmentPolicy(name, steps)
        made = [alone.apply(image, size=160, fit="stretch", rng_seed=seed) for seed in range(150)]
        return float(np.mean([np.abs(one.astype(int) - image).mean() for one in made]))

    low, middle, high = (change(m) for m in (0.05, 0.5, 1.0))
    assert low < middle < high


@pytest.mark.parametrize("magnitude", [0.0, 0.01, 0.99, 1.0])
@pytest.mark.parametrize("name", list(PRESETS))
def test_the_ends_of_the_magnitude_are_within_what_operations_allow(name: str, magnitude: float) -> None:
    policy = AugmentPolicy.parse(name, magnitude=magnitude)
    for side in (28, 100):
        for seed in range(20):
            policy.apply(picture("RGB", side), size=32, fit="pad", rng_seed=seed)
    assert AugmentPolicy.from_document(policy.to_document(), name=name) == policy


@pytest.mark.parametrize("magnitude", [-0.1, 1.1, float("nan")])
def test_other_magnitudes_are_refused(magnitude: float) -> None:
    with pytest.raises(SpecError, match="magnitude"):
        AugmentPolicy.parse("light", magnitude=magnitude)
