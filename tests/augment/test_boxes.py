"""Boxes and masks follow their picture: over 10,000 painted boxes for each way that pixels move."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_ray.augment import CATALOGUE
from autodl_ray.augment.op import Boxes, Op, Target
from autodl_ray.augment.ops import crops, grids, mirrors, warps
from autodl_ray.augment.ops.displaced import Displaced
from autodl_ray.augment.ops.fields import UNKNOWN
from autodl_ray.augment.ops.mirrored import Mirrored
from autodl_ray.augment.ops.warped import Warped
from autodl_ray.augment.ops.windowed import Windowed
from autodl_ray.augment.scene import MIN_AREA, MIN_VISIBLE, Scene, apply_op, cut_boxes

TARGET = Target(40, fill=(1, 2, 3))
CELLS = 4
CASES = 10_000
MOVING = [name for name, op in CATALOGUE.items() if op.moves_pixels]
KINDS: dict[type[Op], list[str]] = {
    kind: [name for name in MOVING if issubclass(CATALOGUE[name], kind)]
    for kind in (Windowed, Mirrored, Warped, Displaced)
}
LOOSE = {Windowed: 1.01, Mirrored: 0.01, Warped: 4.0, Displaced: 2.5}
"""Pixels by which a box may be larger than what was painted: sharp corners between two pixels are not seen."""


def colour_of(label: int) -> tuple[int, int, int]:
    return (40 + 9 * label, 250 - 11 * label, 60 + (label * 67) % 190)


def painted(rng: random.Random) -> Scene:
    """Return a picture with up to 16 boxes, each filled with its label's colour, and its number in the mask."""
    height, width = rng.randint(32, 90), rng.randint(32, 90)
    image = np.full((height, width, 3), 17, dtype=np.uint8)
    mask = np.zeros((height, width), dtype=np.uint8)
    boxes, labels = [], []
    for cell in range(CELLS * CELLS):
        (top, bottom), (left, right) = strip(rng, cell // CELLS, height), strip(rng, cell % CELLS, width)
        image[top:bottom, left:right] = colour_of(cell + 1)
        mask[top:bottom, left:right] = cell + 1
        boxes.append((left, top, right, bottom))
        labels.append(cell + 1)
    return Scene(image, mask, np.array(boxes, dtype=np.float32), np.array(labels, dtype=np.int64))


def strip(rng: random.Random, index: int, side: int) -> tuple[int, int]:
    first, end = index * side // CELLS, (index + 1) * side // CELLS
    low = rng.randint(first, end - 5)
    return low, rng.randint(low + 5, end)


def extent(mask: npt.NDArray[np.uint8], label: int) -> npt.NDArray[np.float64] | None:
    """Return the box around the middles of a label's pixels; None when there is none."""
    rows, columns = np.nonzero(mask == label)
    if len(rows) == 0:
        return None
    return np.array([columns.min() + 0.5, rows.min() + 0.5, columns.max() + 0.5, rows.max() + 0.5])


@pytest.mark.parametrize("kind", list(KINDS), ids=lambda kind: kind.__name__)
def test_boxes_surround_what_was_painted(kind: type[Op]) -> None:
    ops = [CATALOGUE[name]() for name in KINDS[kind]]
    follow(ops, loose=LOOSE[kind])


def follow(ops: list[Op], *, loose: float, cases: int = CASES) -> None:
    rng = random.Random(1)
    for i in range(cases // CELLS**2 + 1):
        op, scene = ops[i % len(ops)], painted(rng)
        assert scene.boxes is not None
        height, width = scene.image.shape[:2]
        drawn = op.draw(rng, height, width)
        whole = op.move_boxes(scene.boxes, drawn, height=height, width=width, target=TARGET)
        moved = apply_op(op, scene, drawn, TARGET)
        check_scene(moved, whole, loose=loose)
        if cases == CASES:  # where a picture grows a lot, colours mix over several pixels
            check_picture(moved)


@pytest.mark.parametrize(
    ("op", "loose"),
    [
        (warps.Perspective(strength=0.8), 12.0),
        (warps.Affine(degrees=180, scale=(0.3, 3.0), shift=0.5, shear=40), 30.0),
        (warps.ShearX(degrees=(-70, 70)), 30.0),
        (warps.Rotate(degrees=(-360, 360)), 4.0),
        (warps.RandomZoom(factor=(0.1, 8)), 1.01),
        (grids.ElasticTransform(cells=(1, 32), strength=(0.2, 0.2)), 6.0),
        (grids.PiecewiseAffine(cells=(1, 32), strength=(0.2, 0.2)), 6.0),
        (grids.GridDistortion(cells=7, limit=0.8), 5.0),
        (grids.OpticalDistortion(bend=(-0.3, 0.3)), 5.0),
        (crops.CropAndPad(fraction=0.45), 1.01),
        (crops.RandomCropFromBorders(share=(0.0, 1.0)), 1.01),
        (crops.TranslateX(share=(-1.0, 1.0)), 1.01),
        (crops.RandomScale(factor=(0.1, 4.0)), 1.01),
        (crops.LongestSide(size=300), 1.01),
    ],
    ids=repr,
)
def test_boxes_follow_at_the_strongest(op: Op, loose: float) -> None:
    follow([op], loose=loose, cases=800)


def check_scene(moved: Scene, whole: Boxes, *, loose: float) -> None:
    """Check each label's box against the label's pixels in the mask; ``whole`` are the boxes before they are cut."""
    assert moved.mask is not None
    assert moved.boxes is not None
    assert moved.labels is not None
    boxes = dict(zip(moved.labels.tolist(), moved.boxes, strict=True))
    assert len(boxes) == len(moved.boxes)
    for label, before in enumerate(whole, start=1):
        found = extent(moved.mask, label)
        if label not in boxes:
            if found is not None:  # dropped: little of it is left in the picture
                assert (np.clip(found, 0, None)[2:] - found[:2]).prod() <= 0.35 * (before[2:] - before[:2]).prod() + 6
            continue
        box = boxes[label]
        if found is None:
            assert (box[2:] - box[:2]).min() < 1 + loose  # too thin for the middle of a pixel
            continue
        assert (found[:2] >= box[:2] - 0.3).all(), (label, found, box)
        assert (found[2:] <= box[2:] + 0.3).all(), (label, found, box)
        if np.array_equal(before, box):  # not cut: then it is as small as what was painted
            assert (found[:2] - 0.5 <= box[:2] + loose).all(), (label, found, box)
            assert (found[2:] + 0.5 >= box[2:] - loose).all(), (label, found, box)


def check_picture(moved: Scene) -> None:
    """Inside each label's pixels, and away from their edge, the picture has the label's colour."""
    assert moved.mask is not None
    assert moved.mask.shape == moved.image.shape[:2]
    colours = np.array([(17, 17, 17), *(colour_of(label) for label in range(1, CELLS * CELLS + 1))])
    mask = moved.mask
    inner = mask[1:-1, 1:-1]
    same = inner != UNKNOWN
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            same = same & (mask[dy : dy + inner.shape[0], dx : dx + inner.shape[1]] == inner)
    if same.any():
        seen = moved.image[1:-1, 1:-1][same].astype(int)
        wrong = np.abs(seen - colours[inner[same]]).max(axis=1) > 6
        assert wrong.mean() < 0.1  # a picture that shrinks mixes colours over more than a pixel


@pytest.mark.parametrize("name", MOVING)
def test_any_box_stays_a_box(name: str) -> None:
    """10,000 boxes an operation, of any size and place: within the picture, upright, large enough, with their label."""
    rng, chance = random.Random(2), np.random.default_rng(3)
    for _ in range(20):
        height, width = rng.choice([(1, 1), (1, 50), (50, 1), (33, 47), (64, 48), (17, 90)])
        corners = np.sort(chance.uniform(0, 1, (500, 2, 2)), axis=1) * (width, height)
        boxes = corners.reshape(500, 4).astype(np.float32)
        boxes[::50, 2] = boxes[::50, 0]  # without width
        labels = np.arange(500)
        image = chance.integers(0, 256, (height, width, 3), dtype=np.uint8)
        scene = Scene(image, image[:, :, 0].copy(), boxes, labels)
        op = CATALOGUE[name]()
        drawn = op.draw(rng, height, width)
        moved = apply_op(op, scene, drawn, TARGET)
        assert moved.boxes is not None
        assert moved.labels is not None
        assert moved.boxes.dtype == np.float32
        assert moved.boxes.shape == (len(moved.labels), 4)
        new_height, new_width = moved.image.shape[:2]
        assert (moved.boxes >= 0).all()
        assert (moved.boxes <= [new_width, new_height] * 2).all()
        sides = moved.boxes[:, 2:] - moved.boxes[:, :2]
        assert (sides > 0).all()
        assert (sides.prod(axis=1) >= MIN_AREA - 1e-4).all()
        again = op.move_boxes(boxes[moved.labels], drawn, height=height, width=width, target=TARGET)
        assert np.allclose(np.clip(again, 0, [new_width, new_height] * 2), moved.boxes, atol=1e-3)
        assert np.array_equal(scene.boxes, boxes)


SQUARE = Target(32)
STILL = [
    (crops.RandomResizedCrop(), (0, 0, 32, 32)),
    (crops.RandomCrop(), (0, 0, 32, 32)),
    (crops.CenterCrop(), (0, 0, 32, 32)),
    (crops.RandomCropFromBorders(), (0, 0, 0, 0)),
    (crops.CropAndPad(), (0, 0, 0, 0)),
    (crops.RandomPad(), (0, 0, 0, 0)),
    (crops.RandomShift(), (0, 0)),
    (crops.RandomScale(), (1.0,)),
    (crops.Resize(), ()),
    (crops.LongestSide(), ()),
    (crops.ShortestSide(), ()),
    (crops.Letterbox(), ()),
    (crops.TranslateX(), (0.0,)),
    (crops.TranslateY(), (0.0,)),
    (mirrors.RandomRotate90(), (0,)),
    (mirrors.SquareSymmetry(), (0, 0, 0)),
    (warps.RandomRotate(), (0.0,)),
    (warps.Rotate(), (0.0,)),
    (warps.SafeRotate(), (0.0,)),
    (warps.ShearX(), (0.0,)),
    (warps.ShearY(), (0.0,)),
    (warps.RandomZoom(), (1.0,)),
    (warps.Affine(), (0.0, 1.0, 0.0, 0.0, 0.0)),
    (warps.Perspective(), (0.0,) * 8),
    (grids.ElasticTransform(), (4, 0.0, 7)),
    (grids.PiecewiseAffine(), (4, 0.0, 7)),
    (grids.GridDistortion(), (1.0,) * 10),
    (grids.OpticalDistortion(), (0.0,)),
]


def test_the_list_of_still_ones_is_whole() -> None:
    never_still = {"HorizontalFlip", "VerticalFlip", "Transpose"}
    assert {type(op).__name__ for op, _ in STILL} == set(MOVING) - never_still


@pytest.mark.parametrize(("op", "drawn"), STILL, ids=lambda value: type(value).__name__)
def test_identity_where_nothing_moves(op: Op, drawn: tuple[float, ...]) -> None:
    chance = np.random.default_rng(4)
    image = chance.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    corners = np.sort(chance.uniform(0, 32, (300, 2, 2)), axis=1).reshape(300, 4).astype(np.float32)
    boxes, kept = cut_boxes(corners, height=32, width=32)
    moved = apply_op(op, Scene(image, image[:, :, 0].copy(), boxes, np.arange(len(boxes))), drawn, SQUARE)
    assert kept.sum() > 200
    assert np.abs(moved.image.astype(int) - image).max() <= 1
    assert np.array_equal(moved.mask, image[:, :, 0])
    assert np.allclose(moved.boxes, boxes, atol=1e-4)
    assert np.array_equal(moved.labels, np.arange(len(boxes)))


@pytest.mark.parametrize(
    ("op", "drawn", "times"),
    [
        (mirrors.HorizontalFlip(), (), 2),
        (mirrors.VerticalFlip(), (), 2),
        (mirrors.Transpose(), (), 2),
        (mirrors.RandomRotate90(), (1,), 4),
        (mirrors.RandomRotate90(), (2,), 2),
        (mirrors.RandomRotate90(), (3,), 4),
        (mirrors.SquareSymmetry(), (1, 1, 1), 2),
        (warps.RandomRotate(), (90.0,), 4),
        (warps.RandomRotate(), (-90.0,), 4),
        (warps.RandomRotate(), (180.0,), 2),
    ],
)
def test_there_and_back_again(op: Op, drawn: tuple[float, ...], times: int) -> None:
    start = painted(random.Random(5))
    scene = start
    for turn in range(times):
        scene = apply_op(op, scene, drawn, TARGET)
        assert turn == times - 1 or not np.array_equal(scene.boxes, start.boxes)
    assert np.array_equal(scene.image, start.image)
    assert np.array_equal(scene.mask, start.mask)
    assert np.array_equal(scene.boxes, start.boxes)
    assert np.array_equal(scene.labels, start.labels)


def test_exact_boxes() -> None:
    boxes = np.array([[2, 3, 6, 9]], dtype=np.float32)

    def moved(op: Op, *drawn: float) -> list[float]:
        return op.move_boxes(boxes, drawn, height=20, width=10, target=TARGET)[0].tolist()  # type: ignore[no-any-return]

    assert moved(mirrors.HorizontalFlip()) == [4, 3, 8, 9]
    assert moved(mirrors.VerticalFlip()) == [2, 11, 6, 17]
    assert moved(mirrors.Transpose()) == [3, 2, 9, 6]
    assert moved(mirrors.RandomRotate90(), 1) == [3, 4, 9, 8]
    assert moved(crops.RandomShift(), 1, -2) == [0, 4, 4, 10]
    assert moved(crops.RandomResizedCrop(), 1, 2, 10, 5) == [0, 8, 32, 32]
    assert moved(crops.TranslateX(), 0.5) == [7, 3, 11, 9]
    assert moved(warps.RandomZoom(), 2.0) == [-1, -4, 7, 8]
    assert moved(warps.Rotate(), 180.0) == pytest.approx([4, 11, 8, 17], abs=1e-5)


def test_a_turn_is_counter_clockwise() -> None:
    image = painted(random.Random(3)).image[:32, :32]
    for quarters in range(4):
        turned = warps.Rotate().apply(image, (90.0 * quarters,), TARGET)
        assert np.abs(turned.astype(int) - np.rot90(image, quarters)).mean() < 1
    assert np.array_equal(warps.RandomRotate().apply(image, (90.0,), TARGET), np.rot90(image))


@pytest.mark.parametrize("degrees", [30.0, 77.0, -45.0])
def test_a_safe_turn_loses_no_corner(degrees: float) -> None:
    whole = np.array([[0, 0, 30, 20]], dtype=np.float32)
    box = warps.SafeRotate().move_boxes(whole, (degrees,), height=20, width=30, target=TARGET)[0]
    assert box[:2].min() > -1e-3
    assert box[2] <= 30 + 1e-3
    assert box[3] <= 20 + 1e-3
    assert box[2] > 29.9 or box[3] > 19.9


@given(
    corners=st.lists(st.floats(-50, 150, width=32), min_size=4, max_size=4),
    height=st.integers(1, 100),
    width=st.integers(1, 100),
)
def test_the_rule_of_what_is_left(corners: list[float], height: int, width: int) -> None:
    xs, ys = sorted(corners[:2]), sorted(corners[2:])
    box = np.array([[xs[0], ys[0], xs[1], ys[1]]], dtype=np.float32)
    cut, kept = cut_boxes(box, height=height, width=width)
    w = max(0.0, min(xs[1], width) - max(xs[0], 0.0))
    h = max(0.0, min(ys[1], height) - max(ys[0], 0.0))
    share = w * h - MIN_VISIBLE * (xs[1] - xs[0]) * (ys[1] - ys[0])
    if abs(w * h - MIN_AREA) > 1e-3 and abs(share) > 1e-2:
        assert bool(kept[0]) == (w * h > MIN_AREA and share > 0)
    assert len(cut) == kept.sum()


def test_boxes_move_without_labels_and_stay_where_pixels_stay() -> None:
    scene = painted(random.Random(6))
    bare = Scene(scene.image, None, scene.boxes, None)
    moved = apply_op(mirrors.HorizontalFlip(), bare, (), TARGET)
    assert moved.labels is None
    assert not np.array_equal(moved.boxes, scene.boxes)
    still = apply_op(CATALOGUE["GaussianBlur"](), scene, (1.0,), TARGET)
    assert still.boxes is scene.boxes
    assert still.mask is scene.mask
    none = Scene(scene.image, None, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    for name in MOVING:
        op = CATALOGUE[name]()
        assert len(apply_op(op, none, op.draw(random.Random(1), *none.image.shape[:2]), TARGET).labels) == 0  # type: ignore[arg-type]
