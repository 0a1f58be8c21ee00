"""Frozen features: those of the Classifier's own backbone, kept, found again, and stopped in time."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from autodl_ray.artifacts import Store, TrainSamples
from autodl_ray.errors import DatasetError, RunInterrupted
from autodl_ray.images import Preprocess
from autodl_ray.models.classifier import build
from autodl_ray.models.features import frozen_features
from autodl_ray.models.preprocess import normalize, preprocess_tensor, preprocess_uint8
from autodl_ray.models.zoo import ZOO
from autodl_ray.runtime import Budget, Context, SilentProgress, StopFlag
from autodl_ray.seeding import rng_for

PRE = Preprocess(96)
ENTRY = ZOO["efficientnet_lite0"]


@pytest.fixture
def samples(tmp_path: Path) -> TrainSamples:
    root, count = tmp_path / "data", 21
    root.mkdir()
    for i in range(count):
        coarse = rng_for(0, i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((128, 96)).save(root / f"{i}.png")
    names = tuple(f"{i}.png" for i in range(count))
    return TrainSamples(root, np.arange(count), names, np.arange(count) % 2, ("a", "b"))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    stop = StopFlag(tmp_path / "stop")
    return Context(Store(tmp_path / "store"), "run", 0, Budget(60), SilentProgress(), stop)


def compute(samples: TrainSamples, context: Context, **changes: object) -> np.ndarray:
    given = {"weights": "packaged", "preprocess": PRE, "dataset_id": "d", "split": "train", **changes}
    return frozen_features(ENTRY, samples=samples, context=context, **given)  # type: ignore[arg-type]


def test_they_are_the_classifiers_own(samples: TrainSamples, context: Context) -> None:
    got = compute(samples, context)
    model = build(ENTRY.name, num_classes=2, image_size=96, weights="packaged").eval()
    pictures = [np.asarray(Image.open(samples.root / p)) for p in samples.paths]
    in_8_bits = normalize(torch.from_numpy(np.stack([preprocess_uint8(p, PRE) for p in pictures])), PRE)
    reference = torch.from_numpy(np.stack([preprocess_tensor(p, PRE) for p in pictures]))
    with torch.inference_mode():
        exact, near = (model.backbone(x).numpy() for x in (in_8_bits, reference))
    assert got.shape == (21, 1280)
    assert got.dtype == np.float32
    assert np.abs(got - exact).max() < 1e-3
    assert np.linalg.norm(got - near) < 0.1 * np.linalg.norm(near)  # noise is the worst case for rounding


def test_kept_and_found_again(samples: TrainSamples, context: Context) -> None:
    first = compute(samples, context)
    for path in samples.paths:
        (samples.root / path).unlink()  # found again, so no picture is read
    started = time.perf_counter()
    assert np.array_equal(compute(samples, context), first)
    assert time.perf_counter() - started < 1
    with pytest.raises(FileNotFoundError):
        compute(samples, context, dataset_id="other")


def test_paddings_are_in_the_convolutions(samples: TrainSamples, context: Context) -> None:
    compute(samples, context)
    graph = onnx.load(next(Path(context.store.root).glob("features/backbone-*/backbone.onnx"))).graph
    kinds = {node.op_type for node in graph.node}
    assert "Conv" in kinds
    assert not kinds & {"Pad", "Shape", "Constant", "BatchNormalization"}


def test_stop_ends_it_and_keeps_nothing_half(samples: TrainSamples, context: Context) -> None:
    context.stop.set()
    with pytest.raises(RunInterrupted, match="Stopped while features"):
        compute(samples, context)
    assert not list(Path(context.store.root).glob("features/*/features.npy"))


def test_damaged_picture_is_an_error(samples: TrainSamples, context: Context) -> None:
    (samples.root / "3.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match="not a picture"):
        compute(samples, replace(context))
