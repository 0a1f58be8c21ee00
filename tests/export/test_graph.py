"""The preprocessing inside the graph is the reference, for every fit and every size."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autodl_ray.export.graph import preprocess_model, with_preprocess
from autodl_ray.export.onnx import export_core
from autodl_ray.images import Fit, Preprocess
from autodl_ray.models.classifier import build
from autodl_ray.models.predictor import open_session
from autodl_ray.models.preprocess import preprocess_tensor
from autodl_ray.seeding import rng_for

FITS = get_args(Fit)
AWKWARD = [
    (1, 1),
    (8, 8),
    (1, 77),
    (97, 1),
    (1000, 3),
    (2, 33),
    (31, 33),
    (33, 50),
    (31, 32),
    (64, 61),
    (192, 256),
    (511, 64),
]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def picture(height: int, width: int) -> np.ndarray:
    return rng_for(0, height, width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def sessions() -> dict[tuple[str, int], Any]:
    return {
        (fit, size): open_session(preprocess_model(Preprocess(size, fit, MEAN, STD)).SerializeToString())
        for fit in FITS
        for size in (17, 32)
    }


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("height", "width"), AWKWARD)
def test_pixels_of_awkward_sizes(sessions: dict[tuple[str, int], Any], fit: Fit, height: int, width: int) -> None:
    _compare(sessions, fit, height=height, width=width, size=32)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fit=st.sampled_from(FITS),
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    size=st.sampled_from([17, 32]),
)
def test_pixels_of_any_size(sessions: dict[tuple[str, int], Any], fit: Fit, height: int, width: int, size: int) -> None:
    _compare(sessions, fit, height=height, width=width, size=size)


def _compare(sessions: dict[tuple[str, int], Any], fit: Fit, *, height: int, width: int, size: int) -> None:
    image = picture(height, width)
    wanted = preprocess_tensor(image, Preprocess(size, fit, MEAN, STD))
    seen = sessions[fit, size].run(None, {"image": np.stack([image, image])})[0]
    assert seen.shape == (2, 3, size, size)
    np.testing.assert_allclose(seen[1], wanted, atol=1e-3)


@pytest.mark.parametrize("fit", FITS)
def test_probabilities_of_the_whole_model(fit: Fit) -> None:
    preprocess = Preprocess(32, fit, MEAN, STD)
    model = build("small_cnn", num_classes=5, image_size=32, weights="none").eval()
    torch.nn.init.normal_(model.head.weight, std=2.0)
    core, _ = export_core(model, 32)
    session = open_session(with_preprocess(core, preprocess, 5).SerializeToString())
    for height, width in AWKWARD:
        image = picture(height, width)
        with torch.no_grad():
            wanted = torch.softmax(model(torch.from_numpy(preprocess_tensor(image, preprocess))[None]), dim=1).numpy()
        seen = session.run(["probabilities"], {"image": image[None]})[0]
        np.testing.assert_allclose(seen, wanted, atol=1e-3)
        assert seen.sum() == pytest.approx(1.0, abs=1e-5)
