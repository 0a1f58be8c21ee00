"""The reference of preprocessing, and that its 8-bit form is near."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autodl_ray.images import Preprocess
from autodl_ray.models.preprocess import normalize, preprocess_tensor, preprocess_uint8
from autodl_ray.seeding import rng_for


def picture(height: int, width: int) -> np.ndarray:
    coarse = rng_for(0, height, width).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((height // 7 + 1, width // 9 + 1, 1), dtype=np.uint8))[:height, :width]


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (33, 100), (24, 24), (10, 200)])
def test_8_bits_are_near_the_reference(fit: str, shape: tuple[int, int]) -> None:
    pre = Preprocess(32, fit=fit, mean=(0.5, 0.4, 0.6), std=(0.5, 0.2, 0.3))  # type: ignore[arg-type]
    image = picture(*shape)
    reference = preprocess_tensor(image, pre)
    quick = normalize(torch.from_numpy(preprocess_uint8(image, pre).copy())[None], pre)[0].numpy()
    assert reference.shape == (3, 32, 32)
    assert reference.dtype == np.float32
    step = 1 / 255 / np.asarray(pre.std)[:, None, None]
    assert (np.abs(reference - quick) <= 1.5 * step).all()


def test_picture_of_the_right_size_is_only_normalised() -> None:
    image = picture(16, 16)
    got = preprocess_tensor(image, Preprocess(16))
    assert np.allclose(got, (image / 255 - 0.5).transpose(2, 0, 1) / 0.5, atol=1e-6)


def test_pad_keeps_the_ratio_and_fills_with_the_mean() -> None:
    white = np.full((10, 20, 3), 255, dtype=np.uint8)
    got = preprocess_tensor(white, Preprocess(20, fit="pad"))
    assert (got[:, 5:15] == 1).all()
    assert (got[:, :5] == 0).all()
    assert (got[:, 15:] == 0).all()


def test_normalize_is_channels_last() -> None:
    got = normalize(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), Preprocess(8))
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(got, torch.full_like(got, -1.0))
