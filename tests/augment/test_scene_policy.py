"""Pictures, masks and boxes through a whole policy and the fit: the same pixels, boxes that follow, nothing outside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodl_ray.augment import AugmentPolicy, Scene
from autodl_ray.augment.fitting import fit_scene
from autodl_ray.augment.presets import PRESETS
from autodl_ray.images import Fit, ImageArray, fit_image

FITS: tuple[Fit, ...] = ("stretch", "crop", "pad")


def scene_of(height: int, width: int, rows: list[tuple[float, float, float, float]], *, seed: int = 0) -> Scene:
    """A dark noisy picture and mask in which each box is painted with its label."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), dtype=np.uint8)
    boxes = np.array(rows, dtype=np.float32).reshape(-1, 4)
    for label, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        image[y1:y2, x1:x2] = 255
        mask[y1:y2, x1:x2] = label + 1
    return Scene(image, mask, boxes, np.arange(len(boxes), dtype=np.int64))


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("fit", FITS)
def test_the_pixels_are_those_of_the_picture_alone(name: str, fit: Fit) -> None:
    policy = AugmentPolicy.parse(name)
    for seed, (height, width) in enumerate([(90, 120), (28, 28), (130, 70), (96, 96)] * 3):
        scene = scene_of(height, width, [(5, 6, 25, 20)], seed=seed)
        plain = policy.apply(scene.image, size=96, fit=fit, rng_seed=seed)
        done = policy.apply_scene(scene, size=96, fit=fit, rng_seed=seed)
        assert np.array_equal(done.image, plain)
        assert done.mask is not None
        assert done.mask.shape == (96, 96)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(list(PRESETS)),
    st.sampled_from(FITS),
    st.integers(1, 200),
    st.integers(1, 200),
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(*(st.floats(0, 1, width=32),) * 4), max_size=5),
)
def test_boxes_never_leave_the_picture_and_keep_their_labels(
    name: str, fit: Fit, height: int, width: int, seed: int, corners: list[tuple[float, float, float, float]]
) -> None:
    sides = np.array([width, height] * 2)
    rows = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    boxes = (np.array(rows, dtype=np.float64).reshape(-1, 4) * sides).astype(np.float32)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    scene = Scene(image, None, boxes, np.arange(len(boxes)) * 7)
    done = AugmentPolicy.parse(name).apply_scene(scene, size=64, fit=fit, rng_seed=seed)
    assert done.boxes is not None
    assert done.labels is not None
    assert done.boxes.dtype == np.float32
    assert len(done.boxes) == len(done.labels)
    assert (done.boxes >= 0).all()
    assert (done.boxes <= 64).all()
    assert (done.boxes[:, 2:] > done.boxes[:, :2]).all() or (height, width) == (64, 64)
    assert set(done.labels) <= set(scene.labels if scene.labels is not None else ())
    assert list(done.labels) == sorted(done.labels)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(60, 120), (120, 60), (64, 64), (31, 47)])
def test_boxes_and_mask_follow_the_fit(fit: Fit, shape: tuple[int, int]) -> None:
    height, width = shape
    middle = (width // 2 - 10, height // 2 - 8, width // 2 + 10, height // 2 + 8)
    scene = scene_of(height, width, [middle])
    done = fit_scene(scene, size=64, fit=fit)
    assert done.boxes is not None
    assert done.mask is not None
    (box,) = done.boxes
    ys, xs = np.nonzero(done.image[:, :, 0] > 158)
    painted = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    assert np.abs(box - painted).max() <= 1.01
    ys, xs = np.nonzero(done.mask == 1)
    masked = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    assert np.abs(box - masked).max() <= 1.01


def test_the_margin_of_pad_is_unknown_to_the_mask() -> None:
    done = fit_scene(scene_of(20, 40, []), size=40, fit="pad")
    assert done.mask is not None
    assert (done.mask[:10] == 255).all()
    assert (done.mask[30:] == 255).all()
    assert (done.mask[10:30] == 0).all()


def test_the_identity_keeps_everything() -> None:
    scene = scene_of(32, 32, [(1, 2, 30, 31), (3, 3, 3.5, 3.5)])
    done = AugmentPolicy("none").apply_scene(scene, size=32, fit="crop", rng_seed=1)
    assert np.array_equal(done.image, scene.image)
    assert done.boxes is scene.boxes  # also the box that is smaller than a pixel: nothing was cut
    assert done.mask is scene.mask


def test_a_box_that_is_cut_away_goes_with_its_label() -> None:
    scene = scene_of(20, 60, [(0, 0, 8, 20), (28, 5, 32, 15), (50, 0, 60, 20)])
    done = fit_scene(scene, size=20, fit="crop")  # columns 20 to 40 stay
    assert done.labels is not None
    assert list(done.labels) == [1]


def test_boxes_without_labels_follow_too() -> None:
    scene = scene_of(20, 60, [(0, 0, 8, 20), (28, 5, 32, 15)])
    done = fit_scene(Scene(scene.image, None, scene.boxes), size=20, fit="crop")
    assert done.labels is None
    assert done.boxes is not None
    assert done.boxes.tolist() == [[8, 5, 12, 15]]


def test_a_policy_moves_boxes_with_what_they_hold() -> None:
    document = {
        "policies": [
            {"one_of": [{"transform": {"name": "HorizontalFlip"}}, {"transform": {"name": "Transpose"}}]},
            {"transform": {"name": "TranslateX", "params": {"share": [-0.2, 0.2]}}, "probability": 0.5},
            {"policies": [{"transform": {"name": "RandomRotate", "params": {"degrees": [0, 90, 180, 270]}}}]},
        ]
    }
    policy = AugmentPolicy.from_document(document)
    scene = scene_of(60, 80, [(20, 20, 45, 35)])
    seen: set[tuple[int, ...]] = set()
    for seed in range(40):
        done = policy.apply_scene(scene, size=64, fit="stretch", rng_seed=seed)
        assert done.boxes is not None
        (box,) = done.boxes
        ys, xs = np.nonzero(done.image[:, :, 1] > 158)
        painted = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert np.abs(box - painted).max() <= 1.5
        seen.add(tuple(painted))
    assert len(seen) > 10


def test_augmix_leaves_boxes_where_they_are() -> None:
    policy = AugmentPolicy.from_document({"policies": [{"policy": "augmix"}]})
    scene = scene_of(32, 32, [(4, 4, 20, 20)])
    done = policy.apply_scene(scene, size=32, fit="stretch", rng_seed=3)
    assert not np.array_equal(done.image, scene.image)
    assert np.array_equal(done.boxes, scene.boxes)  # type: ignore[arg-type]
    assert np.array_equal(done.mask, scene.mask)  # type: ignore[arg-type]


def test_nothing_is_changed_in_place() -> None:
    scene = scene_of(100, 80, [(4, 4, 60, 60)])
    before: list[ImageArray] = [np.array(part) for part in (scene.image, scene.mask, scene.boxes, scene.labels)]
    for name in PRESETS:
        for seed in range(8):
            AugmentPolicy.parse(name).apply_scene(scene, size=48, fit="pad", rng_seed=seed)
    for old, new in zip(before, (scene.image, scene.mask, scene.boxes, scene.labels), strict=True):
        assert np.array_equal(old, new)  # type: ignore[arg-type]


def test_grey_pictures_and_the_fit() -> None:
    image = np.repeat(np.random.default_rng(0).integers(0, 256, (50, 40, 1), dtype=np.uint8), 3, axis=2)
    for fit in FITS:
        wanted = fit_image(image, size=24, fit=fit)
        assert np.array_equal(AugmentPolicy("none").apply(image, size=24, fit=fit, rng_seed=0), wanted)


def test_a_picture_one_pixel_short_of_a_square() -> None:
    scene = scene_of(15, 16, [(2, 2, 14, 13)])
    done = fit_scene(scene, size=24, fit="pad")
    assert done.image.shape == (24, 24, 3)
    assert done.mask is not None
    assert (done.mask[23] == 255).all()
    assert not (done.mask[:23] == 255).any()
