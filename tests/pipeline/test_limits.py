"""Accuracy under limits, on real exports: what is measured, what is delivered, and what is said where none fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.data import run as make_version
from autodl_ray.data.samples import write_digits
from autodl_ray.models.classifier import build, save_weights
from autodl_ray.pipeline.judging import judge_delivered, judge_others, scores_of_file
from autodl_ray.pipeline.limits import smaller_sizes, within_limits
from autodl_ray.pipeline.result import LeaderboardRow
from autodl_ray.pipeline.state import Contender, Run, begin
from autodl_ray.spec import ExperimentSpec
from tests.data.conftest import lines_of, make_context


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("limits")
    return write_digits(folder / "digits", n=120), folder / "runs"


def run_of(place: tuple[Path, Path], **tune: Any) -> Run:
    """A run whose contenders are two networks as they were initialised: nothing has to be trained to be measured."""
    root, store = place
    context = make_context(store)
    spec = ExperimentSpec.model_validate(
        {
            "data": {"path": str(root)},
            "model": {"name": "small_cnn", "image_size": 32},
            "tune": tune,
            "export": {"calibration": 16},
        }
    )
    run = begin(spec, make_version(spec.data, context=context), context)
    run.speeds.update(infer_per_s=2000.0, export_s=1.0)
    for source, claimed in (("train", 0.3), ("sweep t0001", 0.2)):
        file = store / f"{source[:5]}.safetensors"
        if not file.exists():
            network = build("small_cnn", num_classes=run.version.num_classes, image_size=32, weights="none")
            save_weights(network, file)
        row = LeaderboardRow(source, claimed, claimed, 1, 1.0, "finished", {})
        run.rows.append(row)
        run.contenders.append(Contender(run.network, file, row))
    return run


def test_every_model_and_file_is_measured_and_one_file_is_delivered(place: tuple[Path, Path]) -> None:
    run = run_of(place, limits={"latency_ms": 1000, "size_mb": 100})
    winner, candidate = within_limits(run, int8=True)
    limits = run.facts["limits"]
    assert limits["met"]
    assert {(r["source"], r["variant"]) for r in limits["rows"]} == {
        (source, variant) for source in ("train", "sweep t0001") for variant in ("fp32", "int8")
    }
    assert all(r["latency_ms"] > 0 and 0.001 < r["size_mb"] < 1 for r in limits["rows"])
    chosen = next(r for r in limits["rows"] if r["chosen"])
    assert chosen["accuracy"] == max(r["accuracy"] for r in limits["rows"])
    info = open_bundle(candidate.path)[1]
    assert (list(info.variants), info.default_variant) == ([chosen["variant"]], chosen["variant"])
    assert info.val_scores == {"accuracy": chosen["accuracy"], "macro_f1": chosen["macro_f1"]}
    assert (winner.row.source, winner.row.accuracy) == (chosen["source"], chosen["accuracy"])
    assert winner.row.judged.startswith("exported")
    assert all(row.judged.startswith("exported") for row in run.rows), "what was measured is not measured again"
    assert winner in run.contenders
    assert winner.row in run.rows


def test_a_small_limit_takes_the_small_file(place: tuple[Path, Path]) -> None:
    run = run_of(place, limits={"size_mb": 0.2})
    _, candidate = within_limits(run, int8=True)
    assert run.facts["limits"]["met"]
    info = open_bundle(candidate.path)[1]
    assert list(info.variants) == ["int8"]
    assert info.int8.kept
    assert candidate.file("model.int8.onnx").stat().st_size < 200_000
    assert "model.onnx" not in candidate.manifest.files


def test_where_none_keeps_them_smaller_inputs_are_tried_and_the_nearest_is_delivered(place: tuple[Path, Path]) -> None:
    run = run_of(place, limits={"latency_ms": 1e-6})
    winner, candidate = within_limits(run, int8=False)
    limits = run.facts["limits"]
    assert not limits["met"]
    assert {r["source"] for r in limits["rows"]} == {"train", "sweep t0001", "train@24px"}
    assert "limits: train@16px cannot be made of these weights" in lines_of(run.context)  # it is narrower at 16 px
    fastest = min(limits["rows"], key=lambda r: r["latency_ms"])
    assert fastest["chosen"]
    assert winner.row.source == fastest["source"]
    assert open_bundle(candidate.path)[1].preprocess.size == winner.network.preprocess.size
    assert "WARNING: no model keeps the limits; " in lines_of(run.context)
    again = run_of(place, limits={"latency_ms": 1e-6})
    assert within_limits(again, int8=False)[1].id == candidate.id, "a resumed run takes the same measurements"
    assert again.facts == run.facts


def test_the_table_is_judged_on_the_exported_files(place: tuple[Path, Path]) -> None:
    from autodl_ray.pipeline.candidates import candidate_of

    run = run_of(place)
    winner = run.best()
    candidate = candidate_of(run, winner, int8=False, quick=False)
    winner = judge_delivered(run, winner, candidate)
    judge_others(run, winner)
    assert [row.judged for row in run.rows] == ["exported", "exported"]
    seen = scores_of_file(candidate, "fp32", run.version.val)
    assert (winner.row.accuracy, winner.row.macro_f1) == (seen["accuracy"], seen["macro_f1"])
    assert run.rows[0] is winner.row


def test_smaller_inputs_are_multiples_of_eight() -> None:
    assert smaller_sizes(224) == (168, 112)
    assert smaller_sizes(32) == (24, 16)
    assert smaller_sizes(16) == ()
