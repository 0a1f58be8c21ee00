"""Small folders of pictures, and the surroundings of a stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autodl_ray.artifacts import Store
from autodl_ray.runtime import Budget, Context, SilentProgress, StopFlag

MakeFolder = Callable[..., Path]


def write_picture(path: Path, number: int, *, size: tuple[int, int] = (12, 8)) -> Path:
    """Write a picture whose bytes differ for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Return a function that writes class folders: ``make_folder({"cat": 5, "dog": 5})``."""

    def make(classes: dict[str, int], *, name: str = "photos", first: int = 0) -> Path:
        root = tmp_path / name
        number = first
        for label, count in classes.items():
            for i in range(count):
                write_picture(root / label / f"{label.rsplit('/', 1)[-1]} {i}.png", number)
                number += 1
        return root

    return make


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A context with a store of its own, which reports to nobody."""
    return make_context(tmp_path / "runs")


def make_context(store: Path, *, seed: int = 0) -> Context:
    """Return a context whose progress keeps its lines."""
    return Context(
        store=Store(store),
        run="test",
        seed=seed,
        budget=Budget(600),
        progress=SilentProgress(),
        stop=StopFlag(store / "stop"),
    )


def lines_of(context: Context) -> str:
    """Return what was said."""
    assert isinstance(context.progress, SilentProgress)
    return "\n".join(context.progress.lines)
