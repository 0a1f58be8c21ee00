"""MixUp and CutMix: shares, rectangles, soft labels, and what they depend on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodl_ray.augment.mixing import BatchMixer, Mix, mix_images, mix_labels
from autodl_ray.images import ImageArray


def batch(count: int = 8, side: int = 16) -> tuple[ImageArray, npt.NDArray[np.int64]]:
    """Pictures of one value each: 10, 20, 30 …; labels 0, 1, 2, 0, …"""
    values = 10 * np.arange(1, count + 1, dtype=np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (count, side, side, 3)).copy()
    return images, np.arange(count, dtype=np.int64) % 3


def test_mixup_blends_pictures_and_labels_by_the_same_share() -> None:
    images, labels = batch()
    mix = BatchMixer(mixup=0.4, seed=3).draw(8, size=16, epoch=1, step=2)
    assert mix.kind == "mixup"
    mixed, soft = mix_images(images, mix), mix_labels(labels, mix, num_classes=3)
    assert (mixed.dtype, mixed.shape, soft.dtype, soft.shape) == (np.uint8, images.shape, np.float32, (8, 3))
    for i, partner in enumerate(mix.partners):
        wanted = mix.share * images[i].astype(float) + (1 - mix.share) * images[partner]
        assert np.abs(mixed[i] - wanted).max() <= 0.51
        row = np.zeros(3)
        row[labels[i]] += mix.share
        row[labels[partner]] += 1 - mix.share
        assert soft[i] == pytest.approx(row)
    assert np.array_equal(images, batch()[0])  # not changed in place


def test_cutmix_puts_a_rectangle_on_and_counts_its_pixels() -> None:
    images, labels = batch()
    for step in range(50):
        mix = BatchMixer(cutmix=1.0).draw(8, size=16, epoch=0, step=step)
        assert mix.kind == "cutmix"
        mixed, soft = mix_images(images, mix), mix_labels(labels, mix, num_classes=3)
        for i, partner in enumerate(mix.partners):
            other = mixed[i, :, :, 0] == images[partner, 0, 0, 0]
            assert ((mixed[i, :, :, 0] == images[i, 0, 0, 0]) | other).all()
            if partner != i:
                assert 1 - other.mean() == pytest.approx(mix.share, abs=1e-6)
        assert soft.sum(axis=1) == pytest.approx(np.ones(8), abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 64), st.floats(0, 10), st.floats(0, 10), st.integers(0, 50), st.integers(0, 500)
)
def test_what_always_holds(count: int, side: int, mixup: float, cutmix: float, epoch: int, step: int) -> None:
    mixer = BatchMixer(mixup=mixup, cutmix=cutmix, seed=5)
    if not mixer.is_on:
        assert mixup == cutmix == 0
        return
    mix = mixer.draw(count, size=side, epoch=epoch, step=step)
    assert 0 <= mix.share <= 1
    assert sorted(mix.partners) == list(range(count))
    top, left, bottom, right = mix.rectangle
    assert 0 <= top <= bottom <= side
    assert 0 <= left <= right <= side
    images, labels = batch(count, side)
    soft = mix_labels(labels, mix, num_classes=3)
    assert soft.sum(axis=1) == pytest.approx(np.ones(count), abs=1e-5)
    assert soft.min() >= 0
    assert mix_images(images, mix).shape == images.shape


def test_the_shares_are_those_of_the_beta_distribution() -> None:
    for alpha in (0.2, 1.0, 5.0):
        shares = [BatchMixer(mixup=alpha).draw(2, size=8, epoch=0, step=step).share for step in range(1500)]
        assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
        assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)


def test_both_take_turns() -> None:
    kinds = [BatchMixer(mixup=0.2, cutmix=1.0).draw(4, size=8, epoch=0, step=step).kind for step in range(600)]
    assert kinds.count("mixup") / 600 == pytest.approx(0.5, abs=0.07)


def test_a_step_depends_on_seed_epoch_and_step_alone() -> None:
    code = (
        "from autodl_ray.augment.mixing import BatchMixer\n"
        "m = BatchMixer(mixup=0.3, cutmix=0.7, seed=9).draw(6, size=32, epoch=4, step=5)\n"
        "print(m.kind, m.share, m.partners.tolist(), m.rectangle)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    mixer = BatchMixer(mixup=0.3, cutmix=0.7, seed=9)

    def text(mix: Mix) -> str:
        return f"{mix.kind} {mix.share} {mix.partners.tolist()} {mix.rectangle}"

    own = text(mixer.draw(6, size=32, epoch=4, step=5))
    assert done.stdout.strip() == own
    others = [
        text(mixer.draw(6, size=32, epoch=3, step=5)),
        text(mixer.draw(6, size=32, epoch=4, step=6)),
        text(BatchMixer(mixup=0.3, cutmix=0.7, seed=8).draw(6, size=32, epoch=4, step=5)),
    ]
    assert own not in others
    slices = [mixer.draw(count, size=32, epoch=4, step=5) for count in (6, 3, 2)]
    assert len({(mix.kind, mix.share, mix.rectangle) for mix in slices}) == 1  # of every number of workers


def test_off_is_off() -> None:
    assert not BatchMixer().is_on
    with pytest.raises(ValueError, match="neither MixUp nor CutMix"):
        BatchMixer().draw(4, size=8, epoch=0, step=0)
