"""Frozen features choose among candidates: what tells the classes apart, and of equals the cheapest."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autodl_ray import data
from autodl_ray.artifacts import DatasetVersion, Store
from autodl_ray.errors import SpecError
from autodl_ray.pipeline.screening import Probe, choose_network, pick, screening_facts
from autodl_ray.runtime import Budget, Context, SilentProgress, StopFlag
from autodl_ray.seeding import rng_for
from autodl_ray.spec import ExperimentSpec

Picture = Callable[[int, np.random.Generator], np.ndarray]


def coloured(label: int, rng: np.random.Generator) -> np.ndarray:
    return (rng.normal(0, 20, (96, 96, 3)) + ((200, 60, 60), (60, 60, 200))[label]).clip(0, 255)


def fine(label: int, rng: np.random.Generator) -> np.ndarray:
    """Stripes of one pixel, across or down, in noise: gone when the picture is shrunk to a third."""
    stripes = (np.arange(96) % 2 * 80 + 80)[None, :, None] + rng.normal(0, 40, (96, 96, 1))
    picture = np.broadcast_to(stripes, (96, 96, 3))
    return (picture if label else picture.transpose(1, 0, 2)).clip(0, 255)


def made(
    tmp_path: Path, picture: Picture, *candidates: dict[str, object]
) -> tuple[ExperimentSpec, DatasetVersion, Context]:
    for label in (0, 1):
        (tmp_path / "photos" / f"c{label}").mkdir(parents=True)
        for i in range(30):
            pixels = picture(label, rng_for(0, label, i)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / f"c{label}" / f"{i}.png")
    spec = ExperimentSpec.model_validate(
        {
            "data": {"path": str(tmp_path / "photos"), "split": {"val": 0.3}},
            "model": {"name": "efficientnet_lite0", "candidates": candidates},
        }
    )
    stop = StopFlag(tmp_path / "stop")
    context = Context(Store(tmp_path / "store"), "run", 0, Budget(600), SilentProgress(), stop)
    return spec, data.run(spec.data, context=context), context


@pytest.mark.parametrize(("picture", "size"), [(coloured, 32), (fine, 96)])
def test_the_cheapest_input_that_tells_the_classes_apart(tmp_path: Path, picture: Picture, size: int) -> None:
    spec, version, context = made(tmp_path, picture, {"image_size": 96}, {"image_size": 32})
    assert choose_network(spec, version, context).preprocess.size == size
    facts = screening_facts(context.folder)
    assert facts is not None
    large, small = facts["candidates"]
    assert large["accuracy"] > 0.9
    assert (small["accuracy"] > 0.9) == (size == 32)
    assert large["cost"] == 9 * small["cost"]
    (context.folder / "screening.json").write_text((context.folder / "screening.json").read_text().replace(
        f'"chosen": {int(size == 32)}', f'"chosen": {int(size != 32)}'
    ))  # fmt: skip
    assert choose_network(spec, version, context).preprocess.size != size, "what was chosen is looked up"


def test_networks_without_trained_weights_are_refused(tmp_path: Path) -> None:
    spec, version, context = made(tmp_path, coloured, {"image_size": 32}, {"name": "small_cnn"})
    with pytest.raises(SpecError, match=r"small_cnn \(none\)"):
        choose_network(spec, version, context)


def probe(accuracy: float, cost: float, error: float = 0.01) -> Probe:
    return Probe("x", accuracy, error, cost, 1.0)


def test_one_standard_error() -> None:
    assert pick([probe(0.9, 1), probe(0.95, 9), probe(0.945, 4)]) == 2
    assert pick([probe(0.9, 1), probe(0.95, 9), probe(0.93, 4)]) == 1
    assert pick([probe(0.9, 1), probe(math.nan, 0.1)]) == 0
    assert pick([probe(0.9, 2), probe(0.9, 1)]) == 1


def test_a_candidate_is_a_whole_section() -> None:
    spec = ExperimentSpec.model_validate(
        {"data": {"path": "x"}, "model": {"image_size": 64, "fit": "pad", "candidates": [{}, {"fit": "crop"}]}}
    )
    assert [(m.image_size, m.fit, m.candidates) for m in spec.model.alternatives()] == [
        (64, "pad", ()),
        (64, "crop", ()),
    ]
    plain = spec.model.model_copy(update={"candidates": ()})
    assert plain.alternatives() == (plain,)
