"""The augmentation of a sample depends on (seed, sample, epoch) alone: not on process, order or batch."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from autodl_ray.augment import CATALOGUE, AugmentPolicy
from autodl_ray.augment.presets import PRESETS
from autodl_ray.images import ImageArray
from autodl_ray.seeding import seed_for

EVERYTHING = {"policies": [{"one_of": [{"transform": {"name": name}} for name in CATALOGUE]}, {"policy": "augmix"}]}


def picture(sample: int) -> ImageArray:
    return np.random.default_rng(sample).integers(0, 256, (70 + sample, 90, 3), dtype=np.uint8)


def made(name: str, *, seed: int, sample: int, epoch: int) -> str:
    """The digest of what training sees of a sample in an epoch."""
    policy = AugmentPolicy.from_document(EVERYTHING) if name == "everything" else AugmentPolicy.parse(name)
    rng_seed = seed_for(seed, "augment", epoch, sample)  # as data/stream/order.py::augment_seed
    pixels = policy.apply(picture(sample), size=32, fit="stretch", rng_seed=rng_seed)
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


CASES = [(sample, epoch) for epoch in range(3) for sample in range(4)]


@pytest.mark.parametrize("name", [*PRESETS, "everything"])
def test_the_order_does_not_matter(name: str) -> None:
    forwards = {case: made(name, seed=1, sample=case[0], epoch=case[1]) for case in CASES}
    backwards = {case: made(name, seed=1, sample=case[0], epoch=case[1]) for case in reversed(CASES)}
    assert forwards == backwards
    if name != "none":
        assert len(set(forwards.values())) >= len(CASES) - 1  # another picture in every epoch
        other = {case: made(name, seed=2, sample=case[0], epoch=case[1]) for case in CASES}
        assert sum(other[case] == forwards[case] for case in CASES) <= 1


def test_another_process_makes_the_same_pixels() -> None:
    names = [*PRESETS, "everything"]
    code = (
        "from tests.augment.test_determinism import CASES, made\n"
        f"for name in {names!r}:\n"
        "    print(name, *(made(name, seed=1, sample=s, epoch=e) for s, e in CASES[:5]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    own = [
        " ".join([name, *(made(name, seed=1, sample=sample, epoch=epoch) for sample, epoch in CASES[:5])])
        for name in names
    ]
    assert done.stdout.strip().split("\n") == own


def test_the_seed_is_that_of_the_stream() -> None:
    from autodl_ray.data.stream.order import augment_seed

    assert augment_seed(5, epoch=2, sample_id=9) == seed_for(5, "augment", 2, 9)


def test_a_different_number_of_threads_makes_the_same_pixels() -> None:
    import cv2

    before = cv2.getNumThreads()
    try:
        seen = []
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            seen.append([made("everything", seed=3, sample=s, epoch=0) for s in range(10)])
    finally:
        cv2.setNumThreads(before)
    assert seen[0] == seen[1]
