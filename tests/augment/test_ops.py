"""The operations: shapes and types for every picture, choices within their ranges, and what each must not change."""

from __future__ import annotations

import hashlib
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodl_ray.augment import CATALOGUE, Op, Target
from autodl_ray.augment.ops.colour import ColorJitter
from autodl_ray.augment.ops.crops import RandomResizedCrop, RandomShift
from autodl_ray.augment.ops.dropout import RandomErasing
from autodl_ray.augment.ops.mirrors import HorizontalFlip, VerticalFlip
from autodl_ray.augment.ops.noise import GaussianNoise
from autodl_ray.augment.ops.warps import RandomRotate
from autodl_ray.augment.scene import Scene, apply_op
from autodl_ray.images import ImageArray

ROOT = Path(__file__).parents[2]
TARGET = Target(16, fill=(1, 2, 3))


def noise(height: int, width: int) -> ImageArray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def once(op: Op, image: ImageArray, seed: int = 0) -> ImageArray:
    return op.apply(image, op.draw(random.Random(seed), *image.shape[:2]), TARGET)


@pytest.mark.parametrize("name", list(CATALOGUE))
@settings(deadline=None)  # the first use of some loads albumentations
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 1000))
def test_every_operation_on_every_size(name: str, height: int, width: int, seed: int) -> None:
    image = noise(height, width)
    before = image.copy()
    op = CATALOGUE[name]()
    result = once(op, image, seed)
    assert result.dtype == np.uint8
    assert result.ndim == 3
    assert result.shape[2] == 3
    assert result.size > 0
    assert np.array_equal(image, before)
    assert np.array_equal(once(pickle.loads(pickle.dumps(op)), image, seed), result)


@pytest.mark.parametrize("name", list(CATALOGUE))
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (33, 47), (224, 224)])
def test_a_scene_of_every_size(name: str, height: int, width: int) -> None:
    image = noise(height, width)
    boxes = np.array([[0, 0, width, height]], dtype=np.float32)
    scene = Scene(image, image[:, :, 0].copy(), boxes, np.array([7]))
    op = CATALOGUE[name]()
    for seed in range(3):
        drawn = op.draw(random.Random(seed), height, width)
        moved = apply_op(op, scene, drawn, TARGET)
        assert np.ascontiguousarray(moved.image).shape == moved.image.shape
        assert moved.image.dtype == np.uint8
        assert moved.mask is not None
        assert moved.mask.shape == moved.image.shape[:2]
        assert moved.mask.dtype == np.uint8
        assert np.array_equal(apply_op(op, scene, drawn, TARGET).image, moved.image)
        assert np.array_equal(image, noise(height, width))
        assert moved.labels is not None
        assert set(moved.labels.tolist()) <= {7}
        if height == width == 224:
            assert len(moved.labels) == 1


@pytest.mark.parametrize("name", sorted(set(CATALOGUE) - {"ColorJitter"}))  # whose defaults change nothing
def test_every_operation_does_something(name: str) -> None:
    coarse = np.random.default_rng(5).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(coarse, (60, 40), interpolation=cv2.INTER_CUBIC) // 2 + 60, dtype=np.uint8)
    results = [once(CATALOGUE[name](), image, seed) for seed in range(8)]
    assert any(result.shape != image.shape or not np.array_equal(result, image) for result in results)


def test_what_is_behind_the_catalogue_is_the_same_in_every_thread_and_process() -> None:
    names = ("RandomRain", "RandomSnow", "RandomSunFlare")
    here = [digest(name, seed) for name in names for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(digest, np.repeat(names, 4), list(range(4)) * len(names))) == here
    program = (
        "import sys; from tests.augment.test_ops import digest\n"
        f"print([digest(name, seed) for name in {names} for seed in range(4)])\n"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert there.stdout.strip() == str(here)
    assert len(set(here)) == len(here)


def digest(name: str, seed: int) -> str:
    return hashlib.sha256(once(CATALOGUE[name](), noise(40, 50), seed).tobytes()).hexdigest()[:12]


def test_the_catalogue_loads_neither_albumentations_nor_scipy() -> None:
    program = (
        "import sys, autodl_ray.augment; print([m for m in ('albumentations', 'scipy', 'torch') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == "[]"


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    low=st.floats(0.01, 1),
    ratio=st.floats(0.1, 3),
    seed=st.integers(0, 100),
)
def test_a_crop_lies_within_the_picture(height: int, width: int, low: float, ratio: float, seed: int) -> None:
    op = RandomResizedCrop(scale=(low, 1.0), ratio=(ratio, 2 * ratio))
    top, left, h, w = op.draw(random.Random(seed), height, width)
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h >= 1
    assert w >= 1


def test_a_crop_keeps_to_its_ranges() -> None:
    op = RandomResizedCrop(scale=(0.5, 0.8), ratio=(0.75, 1.33))
    drawn = np.array([op.draw(random.Random(seed), 300, 400) for seed in range(300)])
    area, ratio = drawn[:, 2] * drawn[:, 3] / (300 * 400), drawn[:, 3] / drawn[:, 2]
    assert 0.49 < area.min() < 0.53
    assert 0.77 < area.max() < 0.81
    assert 0.74 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.34
    assert len(np.unique(drawn[:, 0])) > 50


@pytest.mark.parametrize("op", [HorizontalFlip(), VerticalFlip()])
def test_two_flips_are_none(op: Op) -> None:
    image = noise(7, 9)
    assert np.array_equal(once(op, once(op, image)), image)
    assert not np.array_equal(once(op, image), image)


def test_a_list_of_degrees_is_one_of_these_angles() -> None:
    op = RandomRotate(degrees=(0, 90, 180, 270))
    assert {op.draw(random.Random(seed), 5, 5)[0] for seed in range(50)} == {0, 90, 180, 270}
    image = noise(6, 9)
    assert np.array_equal(op.apply(image, (90,), TARGET), np.rot90(image))
    assert np.array_equal(op.apply(image, (-90,), TARGET), np.rot90(image, -1))
    angles = [RandomRotate(degrees=15).draw(random.Random(seed), 5, 5)[0] for seed in range(200)]
    assert -15 <= min(angles) < -13
    assert 13 < max(angles) <= 15


def test_another_angle_keeps_the_size_and_fills_the_corners() -> None:
    image = np.full((21, 21, 3), 200, dtype=np.uint8)
    turned = RandomRotate(degrees=45, border="fill").apply(image, (45,), TARGET)
    assert turned.shape == (21, 21, 3)
    assert turned[0, 0].tolist() == [1, 2, 3]
    assert turned[10, 10].tolist() == [200, 200, 200]
    assert np.array_equal(RandomRotate(degrees=45).apply(image, (45,), TARGET), image)


def test_a_shift_moves_whole_pixels() -> None:
    image = noise(8, 8)
    shifted = RandomShift().apply(image, (2, -3), TARGET)
    assert np.array_equal(shifted[2:, :5], image[:6, 3:])
    assert np.array_equal(shifted[0], shifted[2])
    assert RandomShift(fraction=0.125).draw(random.Random(1), 8, 8)[0] in (-1, 0, 1)


def test_colour_factors() -> None:
    image = noise(10, 10)
    jitter = ColorJitter()
    assert np.array_equal(jitter.apply(image, (1, 1, 1, 0), TARGET), image)
    darker = jitter.apply(image, (0.5, 1, 1, 0), TARGET)
    assert np.abs(darker - image * 0.5).max() <= 0.5
    grey = jitter.apply(image, (1, 1, 0, 0), TARGET)
    assert np.ptp(grey, axis=2).max() == 0
    flat = jitter.apply(image, (1, 0, 1, 0), TARGET)
    assert np.ptp(flat) <= 1
    turned = jitter.apply(np.full((2, 2, 3), 90, dtype=np.uint8), (1, 1, 1, 0.3), TARGET)
    assert np.abs(turned.astype(int) - 90).max() <= 1  # grey has no hue
    red = jitter.apply(np.full((1, 1, 3), (200, 60, 60), dtype=np.uint8), (1, 1, 1, 1 / 3), TARGET)[0, 0]
    assert red.argmax() != 0


def test_noise_and_erasing() -> None:
    image = np.full((64, 64, 3), 128, dtype=np.uint8)
    assert 0.03 * 255 < GaussianNoise().apply(image, (0.04, 7), TARGET).std() < 0.05 * 255
    erased = RandomErasing(holes=2).apply(image, (0, 0, 4, 5, 60, 60, 4, 4), TARGET)
    assert (erased == (1, 2, 3)).all(axis=2).sum() == 4 * 5 + 4 * 4
