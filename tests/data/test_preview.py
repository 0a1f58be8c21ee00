"""train_batch.png: every picture with its label, boxes where there are any, whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from autodl_ray.data.preview import write_train_batch
from autodl_ray.errors import StoreError
from autodl_ray.images import ImageArray

CLASSES = ("cat", "dog", "horse")


@dataclass(frozen=True)
class Plain:
    images: ImageArray
    labels: npt.NDArray[np.int64] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Boxed(Plain):
    boxes: tuple[npt.NDArray[np.float32], ...]
    box_labels: tuple[npt.NDArray[np.int64], ...]


def pictures(count: int, side: int = 32) -> ImageArray:
    values = np.linspace(60, 250, count).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (count, side, side, 3)).copy()


def read(path: Path) -> ImageArray:
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


def test_every_picture_is_shown_with_its_label(tmp_path: Path) -> None:
    images = pictures(10)
    write_train_batch(Plain(images, np.arange(10) % 3), CLASSES, tmp_path / "run" / "train_batch.png")
    sheet = read(tmp_path / "run" / "train_batch.png")
    assert all((sheet == images[i, 0, 0]).all(axis=2).sum() >= 100 * 100 for i in range(10))
    write_train_batch(Plain(images, (np.arange(10) + 1) % 3), CLASSES, tmp_path / "other.png")
    assert not np.array_equal(sheet, read(tmp_path / "other.png"))
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["train_batch.png"]


def test_only_the_first_are_shown(tmp_path: Path) -> None:
    batch = Plain(pictures(50), np.zeros(50, dtype=np.int64))
    sizes = []
    for most in (8, 32, 100):
        write_train_batch(batch, CLASSES, tmp_path / "b.png", most=most)
        sizes.append(read(tmp_path / "b.png").shape[0])
    assert sizes[1] / sizes[0] == pytest.approx(4, rel=0.1)
    assert sizes[2] / sizes[0] == pytest.approx(7, rel=0.1)


def test_soft_labels_and_boxes(tmp_path: Path) -> None:
    soft = np.array([[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]], dtype=np.float32)
    write_train_batch(Plain(pictures(2), soft), CLASSES, tmp_path / "soft.png")
    plain = read(tmp_path / "soft.png")
    box = np.array([[4, 4, 20, 28]], dtype=np.float32)
    none = np.zeros((0, 4), dtype=np.float32)
    boxed = Boxed(pictures(2), soft, (box, none), (np.array([1]), np.array([], dtype=np.int64)))
    write_train_batch(boxed, CLASSES, tmp_path / "boxed.png")
    changed = (plain != read(tmp_path / "boxed.png")).any(axis=2)
    ys, xs = np.nonzero(changed)
    assert changed.any()
    assert (xs.min() - 6, ys.min() - 6) == (16, 16)  # 4 px scaled by 128 / 32, behind the gap
    assert (xs.max() - 6, ys.max() - 6) == (79, 111)


def test_captions_of_soft_labels() -> None:
    from autodl_ray.data.preview import _caption

    assert _caption(np.int64(1), CLASSES) == "dog"
    assert _caption(np.array([0.3, 0.7, 0.0], dtype=np.float32), CLASSES) == "70% dog\n30% cat"
    assert _caption(np.array([0.0, 0.0, 1.0], dtype=np.float32), CLASSES) == "horse"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_train_batch(Plain(pictures(1), np.array([0])), CLASSES, tmp_path / "file" / "b.png")


def test_long_names_and_no_picture(tmp_path: Path) -> None:
    write_train_batch(Plain(pictures(1), np.array([0])), ["x" * 500], tmp_path / "long.png")
    assert read(tmp_path / "long.png").shape[1] < 200
    write_train_batch(Plain(pictures(0), np.zeros(0, dtype=np.int64)), CLASSES, tmp_path / "none.png")
    assert (tmp_path / "none.png").is_file()
