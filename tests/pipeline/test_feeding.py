"""What trainings are fed: what is done about unequal classes, what the first batch looks like, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autodl_ray.artifacts import DatasetVersion
from autodl_ray.data import run as make_version
from autodl_ray.data.samples import write_digits
from autodl_ray.images import Preprocess
from autodl_ray.models.zoo import find_entry
from autodl_ray.pipeline.feeding import balance, open_stream, show_first_batch
from autodl_ray.spec import DataSpec, TrainSpec
from autodl_ray.train.config import resolve
from tests.data.conftest import lines_of, make_context


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DatasetVersion]:
    """Digits of which only eight fours are left."""
    folder = tmp_path_factory.mktemp("unequal")
    root = write_digits(folder / "digits", n=600)
    for path in sorted((root / "4").iterdir())[8:]:
        path.unlink()
    return root, make_version(DataSpec(path=str(root)), context=make_context(folder / "runs"))


def test_auto_weighs_the_loss_and_says_so(unequal: tuple[Path, DatasetVersion], tmp_path: Path) -> None:
    root, version = unequal
    context = make_context(tmp_path)
    decided = balance(DataSpec(path=str(root)), version, context=context)
    assert decided.way == "weights"
    assert decided.loss_weights == decided.weights
    assert decided.weights is not None
    assert int(np.argmax(decided.weights)) == version.classes.index("4")
    counts = np.bincount(version.train.labels)
    assert float((np.array(decided.weights) * counts).sum()) == pytest.approx(len(version.train))
    assert "balance weights: the largest class has" in lines_of(context)


def test_a_sampler_leaves_the_loss_alone(unequal: tuple[Path, DatasetVersion], tmp_path: Path) -> None:
    root, version = unequal
    decided = balance(DataSpec(path=str(root), balance="sampler"), version, context=make_context(tmp_path))
    assert (decided.way, decided.loss_weights) == ("sampler", None)
    assert decided.weights is not None


def test_nothing_is_done_and_nothing_said_where_it_is_not_wanted(
    unequal: tuple[Path, DatasetVersion], tmp_path: Path
) -> None:
    root, version = unequal
    context = make_context(tmp_path)
    decided = balance(DataSpec(path=str(root), balance="none"), version, context=context)
    assert (decided.way, decided.weights) == ("none", None)
    assert lines_of(context) == ""


def test_the_first_batch_is_drawn_as_the_training_sees_it(unequal: tuple[Path, DatasetVersion], tmp_path: Path) -> None:
    _, version = unequal
    preprocess = Preprocess(size=8)
    source = open_stream(version, preprocess, seed=0)
    sheets = []
    for mixup in (0.0, 0.0, 0.5):
        train = TrainSpec(augment="light", batch_size=16, mixup=mixup)
        config = resolve(
            train, find_entry("pixels"), preprocess=preprocess, num_classes=10, weights="none", epochs=1, seed=0
        )
        path = tmp_path / f"{len(sheets)}.png"
        show_first_batch(source, config, path)
        sheets.append(np.asarray(Image.open(path).convert("RGB")))
    assert sheets[0].std() > 20
    assert np.array_equal(sheets[0], sheets[1])
    assert sheets[0].shape != sheets[2].shape or not np.array_equal(sheets[0], sheets[2])


def test_pictures_with_boxes_are_refused_with_a_reason(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / "d" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / "labels").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "d" / "images" / f"{i}.png")
        (tmp_path / "d" / "labels" / f"{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.4 0.4\n")
    (tmp_path / "d" / "classes.txt").write_text("cat\ndog\n")
    # In a process of its own: a run that ends stops its Ray, which in this process is that of all tests.
    command = [sys.executable, "-m", "autodl_ray", "run", str(tmp_path / "d"), "--store", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "have boxes instead of one label each" in done.stderr
    assert "12 boxes in 12 training pictures" in done.stderr
