"""The reference in a bundle: what the training looked like, and what was answered on the validation split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from autodl_ray.artifacts import Artifact
from autodl_ray.artifacts.reference import REFERENCE_JSON, STATISTICS, Reference, answers_document
from autodl_ray.export import write_bundle
from autodl_ray.export.reference import make_reference
from autodl_ray.images import decode_image
from autodl_ray.models.predictor import Predictor
from autodl_ray.serve.answers import open_models
from autodl_ray.spec import ServeSpec
from tests.export.tiny import CLASSES, Shapes, context_in


def test_a_bundle_holds_it_where_the_training_split_is_given(
    candidate: Artifact, shapes: Shapes, tmp_path: Path
) -> None:
    bundle = write_bundle(candidate, report=None, serve=ServeSpec(), context=context_in(tmp_path), train=shapes.train)
    reference = Reference.from_json(json.loads(bundle.file(REFERENCE_JSON).read_text(encoding="utf-8")))
    assert reference.pictures == len(shapes.train)
    assert {name: sum(h.counts) for name, h in reference.statistics.items()} == dict.fromkeys(STATISTICS, 48)
    assert (reference.answers, sum(reference.classes), len(reference.classes)) == (len(shapes.val), 60, len(CLASSES))
    predict = Predictor.open(bundle.path, variant="fp32")
    rows = predict([decode_image(shapes.val.read(i)) for i in range(len(shapes.val))])
    assert reference.classes == tuple(np.bincount(rows.argmax(axis=1), minlength=3).tolist())
    (served,) = open_models([("shapes", bundle.path)], num_threads=1)
    assert served.reference == reference


def test_without_the_split_or_for_other_classes_there_is_none(candidate: Artifact, tmp_path: Path) -> None:
    bundle = write_bundle(candidate, report=None, serve=ServeSpec(), context=context_in(tmp_path))
    assert REFERENCE_JSON not in bundle.manifest.files
    assert open_models([("shapes", bundle.path)], num_threads=1)[0].reference is None


def test_it_looks_at_no_more_than_time_allows_and_at_the_same_pictures_again(shapes: Shapes) -> None:
    answers = answers_document(np.eye(3, dtype=np.float32)[np.arange(30) % 3])
    hasty = make_reference(shapes.train, answers, seed=0, limit_s=0.0)
    assert hasty is not None
    assert hasty.pictures == 32
    assert make_reference(shapes.train, answers, seed=0, limit_s=0.0) == hasty
    assert make_reference(shapes.train, answers, seed=1, limit_s=0.0) != hasty
    assert make_reference(shapes.train.take([]), answers, seed=0) is None
