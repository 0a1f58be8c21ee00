"""The predictor: light to import, rows in order, any sizes, and the answers of the network it came from."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from autodl_ray.errors import BundleError, InputError
from autodl_ray.images import Preprocess
from autodl_ray.models.predictor import Predictor, group_by_size
from autodl_ray.seeding import rng_for
from tests.serve.tiny import CLASSES, make_bundle


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor.open(make_bundle(tmp_path), num_threads=1)


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = rng_for(0, "pictures")
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


def test_rows_come_in_order_whatever_the_sizes(predictor: Predictor) -> None:
    many = pictures((4, 4), (9, 2), (4, 4), (1, 1), (9, 2), (4, 4))
    together = predictor(many)
    assert together.shape == (6, 3)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, np.concatenate([predictor([p]) for p in many]), atol=1e-6)


def test_nothing_gives_no_rows(predictor: Predictor) -> None:
    assert predictor([]).shape == (0, len(CLASSES))


@pytest.mark.parametrize(
    ("bad", "seen"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        ("a.jpg", "str"),
    ],
)
def test_what_is_no_picture_is_refused(predictor: Predictor, bad: object, seen: str) -> None:
    with pytest.raises(InputError, match=seen) as caught:
        predictor([*pictures((4, 4)), bad])  # type: ignore[list-item]
    assert "Picture 1" in str(caught.value)


def test_batches_are_bounded_by_count_and_bytes() -> None:
    assert [len(b) for b in group_by_size(pictures(*[(2, 2)] * 70))] == [32, 32, 6]
    large = [np.broadcast_to(np.uint8(0), (3000, 4000, 3))] * 3
    assert group_by_size(large) == [[0], [1], [2]]


def test_a_variant_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no int8 variant") as caught:
        Predictor.open(make_bundle(tmp_path), variant="int8")
    assert "auto, fp32" in str(caught.value)


def test_very_long_pictures_are_cut_for_crop(tmp_path: Path) -> None:
    from autodl_ray.export.graph import with_preprocess
    from autodl_ray.export.onnx import export_core
    from autodl_ray.images import without_far_ends
    from autodl_ray.models import predictor as module
    from autodl_ray.models.classifier import build

    rule = Preprocess(16, "crop")
    net = build("pixels", num_classes=3, image_size=16, weights="none").eval()
    session = module.open_session(with_preprocess(export_core(net, 16)[0], rule, 3).SerializeToString())
    for height, width in ((3, 1001), (1002, 4), (17, 16)):
        picture = pictures((height, width))[0]
        cut = without_far_ends(picture)
        assert max(cut.shape[:2]) <= 16 * min(cut.shape[:2]) + 1
        whole = session.run(None, {"image": picture[None]})[0]
        np.testing.assert_allclose(session.run(None, {"image": cut[None]})[0], whole, atol=2e-2)
    assert without_far_ends(np.zeros((1, 5_000_000, 3), np.uint8)).shape == (1, 16, 3)


def test_threads_may_share_a_predictor(predictor: Predictor) -> None:
    many = pictures(*[(8, 8)] * 16)
    wanted, seen = predictor(many), {}

    def ask(i: int) -> None:
        seen[i] = predictor([many[i]])[0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(np.stack([seen[i] for i in range(16)]), wanted, atol=1e-6)


def test_the_import_is_light() -> None:
    heavy = ("torch", "ray", "timm", "sklearn", "onnx")
    code = f"import sys, autodl_ray.models.predictor; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
