"""The real thing on photos: efficientnet_lite0 with packaged weights, from sample photos to a bundle that answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autodl_ray.artifacts import TrainSamples, ValSamples
from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.export import CandidateInputs, make_candidate, write_bundle
from autodl_ray.images import Preprocess, decode_image
from autodl_ray.models.classifier import build
from autodl_ray.models.predictor import Predictor
from autodl_ray.models.zoo import ZOO
from autodl_ray.spec import ExportSpec, ServeSpec
from tests.export.tiny import context_in

PHOTOS = Path(__file__).parents[2] / "jobs" / "samples"


@pytest.mark.slow
def test_lite0_from_photos_to_a_bundle(tmp_path: Path) -> None:
    paths = tuple(sorted(p.relative_to(PHOTOS).as_posix() for p in PHOTOS.rglob("*.jpg")))[::10]
    classes = tuple(sorted({p.split("/")[-2] for p in paths}))
    labels = np.asarray([classes.index(p.split("/")[-2]) for p in paths], dtype=np.int64)
    ids = np.arange(len(paths))
    entry = ZOO["efficientnet_lite0"]
    inputs = CandidateInputs(
        model=build(entry.name, num_classes=len(classes), image_size=128, weights="packaged").eval(),
        model_name=entry.name,
        preprocess=Preprocess(128, "stretch", entry.mean, entry.std),
        classes=classes,
        train=TrainSamples(PHOTOS, ids[::2], paths[::2], labels[::2], classes),
        val=ValSamples(PHOTOS, ids[1::2], paths[1::2], labels[1::2], classes),
        dataset_id="0" * 32,
        source="quick",
        licence=entry.licence,
    )
    context = context_in(tmp_path)
    spec = ExportSpec(calibration=8, max_drop=0.2)
    candidate = make_candidate(spec, inputs, key="shapes/candidates/quick", context=context)
    bundle = write_bundle(candidate, report=None, serve=ServeSpec(), context=context)
    _, info = open_bundle(bundle.path)
    assert info.exporter == "trace"
    assert info.int8.fp32 is not None
    assert info.int8.int8 is not None
    assert info.int8.int8.bytes < info.int8.fp32.bytes / 3
    answer = Predictor.open(bundle.path)([decode_image((PHOTOS / p).read_bytes()) for p in paths[:3]])
    assert answer.shape == (3, len(classes))
    np.testing.assert_allclose(answer.sum(axis=1), 1.0, atol=1e-4)
