"""Candidates and bundles: whole files, a version by content, parity as a gate, and an atomic replacement."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from autodl_ray.artifacts import Artifact, Store, ValSamples
from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.errors import BundleError, StageError
from autodl_ray.export import CandidateInputs, make_candidate, weights_digest, write_bundle
from autodl_ray.export.parity import check_parity, compare
from autodl_ray.models.classifier import build, load_weights
from autodl_ray.models.predictor import Predictor
from autodl_ray.models.preprocess import preprocess_tensor
from autodl_ray.seeding import rng_for
from autodl_ray.spec import ExportSpec, ServeSpec
from tests.export.tiny import CLASSES, context_in


def test_a_candidate_is_whole(candidate: Artifact, inputs: CandidateInputs) -> None:
    assert set(candidate.manifest.files) == {
        "bundle.json",
        "labels.json",
        "model.int8.onnx",
        "model.onnx",
        "model.safetensors",
        "parity.json",
        "preprocess.json",
    }
    assert candidate.manifest.kind == "candidate"
    assert candidate.manifest.inputs == dict(inputs.inputs)
    _, info = open_bundle(candidate.path)
    assert (info.name, info.classes, info.model, info.licence) == ("shapes", CLASSES, "small_cnn", "Apache-2.0")
    assert info.preprocess.to_preprocess() == inputs.preprocess
    assert info.exporter == "trace"
    assert info.default_variant == "int8"
    assert len(info.version) == 12
    assert info.val_scores == json.loads(candidate.file("parity.json").read_text())["scores"]
    assert info.val_scores["accuracy"] > 0.9
    parity = json.loads(candidate.file("parity.json").read_text())
    assert parity["passed"]
    assert parity["pictures"] == len(inputs.val)
    assert parity["batches"] == [1, 3, 32]
    assert set(parity["by_batch"]) == {"1", "3", "32"}
    assert parity["non_square"] > 5
    assert parity["agreement"] == 1.0
    assert 0 < parity["max_difference"] < 1e-3


def test_its_weights_load_again(candidate: Artifact, inputs: CandidateInputs) -> None:
    again = build("small_cnn", num_classes=3, image_size=32, weights="none")
    load_weights(again, candidate.file("model.safetensors"))
    for name, value in inputs.model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], value)


def test_the_version_follows_the_content(inputs: CandidateInputs, tmp_path: Path) -> None:
    context = context_in(tmp_path)
    quick = replace(inputs, with_int8=False, parity_samples=4)
    made = [make_candidate(ExportSpec(), quick, key=f"shapes/candidates/{k}", context=context) for k in "ab"]
    renamed = replace(quick, classes=("a", "b", "c"))
    other = make_candidate(ExportSpec(), renamed, key="shapes/candidates/c", context=context)
    versions = [open_bundle(a.path)[1].version for a in (*made, other)]
    assert versions[0] == versions[1] != versions[2]
    assert made[0].id == made[1].id
    assert json.loads(made[0].file("parity.json").read_text())["pictures"] == 4


@pytest.mark.parametrize(
    ("spec", "with_int8", "reason"),
    [
        (ExportSpec(int8="off"), True, "export.int8 is off"),
        (ExportSpec(), False, "not tried for this candidate"),
        (ExportSpec(min_speedup=1000, calibration=8), True, "too slow"),
    ],
)
def test_int8_left_out_has_a_reason(
    spec: ExportSpec, with_int8: bool, reason: str, inputs: CandidateInputs, tmp_path: Path
) -> None:
    quick = replace(inputs, with_int8=with_int8, parity_samples=4)
    made = make_candidate(spec, quick, key="shapes/candidates/x", context=context_in(tmp_path))
    _, info = open_bundle(made.path)
    assert info.int8.reason.startswith(reason)
    assert not info.int8.kept
    assert info.variants == {"fp32": "model.onnx"}
    assert "model.int8.onnx" not in made.manifest.files


def test_a_file_that_answers_otherwise_is_no_candidate(candidate: Artifact, inputs: CandidateInputs) -> None:
    graph = onnx.load(candidate.file("model.onnx"))
    network = [t for t in graph.graph.initializer if not t.name.startswith("preprocess/")]
    bias = next(t for t in network if list(t.dims) == [3])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32([9, 0, -9]), bias.name))
    with pytest.raises(StageError, match="does not answer like the trained one") as caught:
        check_parity(inputs.model, graph.SerializeToString(), preprocess=inputs.preprocess, samples=inputs.val)
    assert "agreement 0." in str(caught.value)
    assert "agreement from 0.995" in str(caught.value)
    assert "first layer that differs: head (Linear)" in str(caught.value)


def test_parity_looks_at_every_batch_size_and_both_limits() -> None:
    wanted = np.array([[0.6, 0.4], [0.3, 0.7]], dtype=np.float32)
    record = compare({1: wanted, 3: wanted}, {1: wanted, 3: wanted + np.float32([[2e-3, -2e-3]])}, pictures=2)
    assert record.agreement == 1.0
    assert record.max_difference == pytest.approx(2e-3, rel=1e-3)
    assert record.by_batch[1]["max_difference"] == 0.0
    assert not record.passed
    assert not compare({1: wanted, 3: wanted}, {1: wanted, 3: wanted[::-1]}, pictures=2).passed
    assert not compare({1: wanted}, {1: np.full_like(wanted, np.nan)}, pictures=2).passed
    assert compare({1: wanted}, {1: wanted}, pictures=2).passed
    assert compare({1: wanted}, {1: wanted}, pictures=2, labels=wanted.argmax(1)).scores["accuracy"] == 1.0


def test_parity_ends_early_when_time_is_short(candidate: Artifact, inputs: CandidateInputs) -> None:
    large = ValSamples(
        inputs.val.root,
        np.tile(inputs.val.ids, 3),
        inputs.val.paths * 3,
        np.tile(inputs.val.labels, 3),
        inputs.val.classes,
    )
    exported = candidate.file("model.onnx").read_bytes()
    record = check_parity(inputs.model, exported, preprocess=inputs.preprocess, samples=large, until=0.0)
    assert record.pictures == 64
    assert record.passed


def test_bundle_of_a_candidate(candidate: Artifact, tmp_path: Path) -> None:
    context = context_in(tmp_path)
    first = write_bundle(candidate, report=None, serve=ServeSpec(port=9000), context=context)
    _, info = open_bundle(first.path)
    _, before = open_bundle(candidate.path)
    assert info.serve is not None
    assert info.serve["port"] == 9000
    assert info.test_scores is None
    assert info.version == before.version
    assert first.manifest.inputs == {"candidate": candidate.id}
    assert first.file("model.onnx").read_bytes() == candidate.file("model.onnx").read_bytes()
    assert write_bundle(candidate, report=None, serve=ServeSpec(port=9000), context=context).id == first.id


def test_a_report_replaces_the_bundle_and_brings_its_scores(candidate: Artifact, tmp_path: Path) -> None:
    context = context_in(tmp_path)
    first = write_bundle(candidate, report=None, serve=ServeSpec(), context=context)
    scores = {"accuracy": 0.93, "accuracy_interval": [0.9, 0.95]}
    with context.store.write(
        "shapes/report", kind="evaluation", spec_digest="", inputs={}, seed=0, meta={**scores, "facts": "1a"}
    ) as writer:
        (writer.path / "report.json").write_text("{}")
    report = context.store.find("shapes/report")
    second = write_bundle(candidate, report=report, serve=ServeSpec(), context=context)
    assert second.path == first.path
    assert second.id != first.id
    assert open_bundle(second.path)[1].test_scores == scores
    assert [p.name for p in second.path.parent.iterdir() if p.name.startswith(".bundle")] == []


def test_a_damaged_candidate_makes_no_bundle(inputs: CandidateInputs, tmp_path: Path) -> None:
    context = context_in(tmp_path)
    quick = replace(inputs, with_int8=False, parity_samples=2)
    made = make_candidate(ExportSpec(), quick, key="shapes/candidates/x", context=context)
    (made.path / "model.onnx").write_bytes(b"short")
    with pytest.raises(BundleError, match="truncated or was changed"):
        write_bundle(made, report=None, serve=ServeSpec(), context=context)
    assert Store(tmp_path).find("shapes/bundle") is None


def test_weights_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    assert weights_digest(tmp_path / "a") != weights_digest(tmp_path / "b")
    assert len(weights_digest(tmp_path / "a")) == 32


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_the_predictor_answers_like_the_network(
    candidate: Artifact, inputs: CandidateInputs, variant: Literal["fp32", "int8"]
) -> None:
    exported = Predictor.open(candidate.path, variant=variant)
    rng = rng_for(0, "pictures")
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((24, 24), (40, 13), (5, 60), (24, 24))]
    pixels = torch.from_numpy(np.stack([preprocess_tensor(image, inputs.preprocess) for image in images]))
    with torch.no_grad():
        wanted = torch.softmax(inputs.model(pixels), dim=1).numpy()
    np.testing.assert_allclose(exported(images), wanted, atol=1e-3 if variant == "fp32" else 0.2)
    assert Predictor.open(candidate.path).variant == "int8"
