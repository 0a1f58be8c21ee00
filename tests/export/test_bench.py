"""The table of speeds and the choice for a small machine, on a real bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autodl_ray.artifacts import Artifact
from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.errors import InputError, StageError
from autodl_ray.export import CandidateInputs, make_candidate
from autodl_ray.export.bench import BenchRow, EdgeFigures, Grid, bench, measure_edge, pick_edge
from autodl_ray.export.bench import edge as edge_module
from autodl_ray.export.bench.engines import open_engines
from autodl_ray.export.bench.plot import write_plot
from autodl_ray.seeding import rng_for
from autodl_ray.spec import ExportSpec
from tests.export.tiny import context_in


def edge(variant: str, ms: float, *, peak: float = 100.0, lost: float = 0.0) -> EdgeFigures:
    return EdgeFigures(variant, ms, peak, 10.0 if variant == "fp32" else 2.6, lost)


@pytest.mark.parametrize(
    ("int8", "shipped", "says"),
    [
        (edge("int8", 5.0), "int8", "5.0 ms a picture on one thread, 100 MB at most, file 2.6 MB"),
        (
            edge("int8", 12.0),
            "fp32",
            "int8 is out: it has 0.83 times the speed of FP32 on one thread, at least 1 asked",
        ),
        (edge("int8", 5.0, lost=0.02), "fp32", "int8 is out: it loses 2.00 points of accuracy, at most 0.5 accepted"),
        (edge("int8", 9.8, peak=80.0), "int8", "80 MB at most"),
        (edge("int8", 9.8, peak=120.0), "fp32", "as fast as int8 and 20 MB smaller"),
    ],
)
def test_what_a_small_machine_gets(int8: EdgeFigures, shipped: str, says: str) -> None:
    choice = pick_edge([edge("fp32", 10.0), int8], ExportSpec())
    assert choice.variant == shipped
    assert says in choice.reason


def test_cells_come_cheapest_first() -> None:
    assert Grid(batches=(8, 1), threads=(2, 1)).cells() == ((1, 1), (2, 1), (1, 8), (2, 8))
    assert {threads for threads, _ in Grid().cells()} >= {1}
    with pytest.raises(InputError, match="at least 1") as error:
        Grid(batches=(0,)).cells()
    assert error.value.seen == "0"


def test_every_engine_gives_the_same_answer(candidate: Artifact) -> None:
    """What is timed is what is said to be timed."""
    _, info = open_bundle(candidate.path)
    pictures = rng_for(0, "pictures").integers(0, 256, (2, 40, 48, 3), dtype=np.uint8)
    engines = open_engines(candidate.path, info, ("onnxruntime", "torch", "torch bf16"), num_threads=1)
    assert [(e.name, e.variant) for e in engines] == [
        ("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("torch", "fp32"), ("torch bf16", "fp32"),
    ]  # fmt: skip
    answers = [np.squeeze(np.asarray(e.answer(pictures))) for e in engines if e.answer is not None]
    assert len(answers) == 4
    for answer, tolerance in zip(answers[1:], (0.2, 1e-3, 0.05), strict=True):
        np.testing.assert_allclose(answer, answers[0], atol=tolerance)


def test_openvino_answers_with_either_file(candidate: Artifact) -> None:
    pytest.importorskip("openvino")
    _, info = open_bundle(candidate.path)
    picture = rng_for(0, "picture").integers(0, 256, (1, 40, 48, 3), dtype=np.uint8)
    wanted, *seen = (
        np.squeeze(np.asarray(e.answer(picture)))
        for e in open_engines(candidate.path, info, ("onnxruntime", "openvino"), num_threads=1)
        if e.answer is not None and (e.name, e.variant) != ("onnxruntime", "int8")
    )
    assert len(seen) == 2
    np.testing.assert_allclose(seen[0], wanted, atol=1e-3)
    np.testing.assert_allclose(seen[1], wanted, atol=0.2)


def test_a_table_and_its_plot(candidate: Artifact, tmp_path: Path) -> None:
    _, info = open_bundle(candidate.path)
    pictures = [rng_for(0, "bench").integers(0, 256, (32, 32, 3), dtype=np.uint8)]
    told: list[tuple[int, int]] = []
    grid = Grid(batches=(1, 4), threads=(1,), engines=("onnxruntime", "torch"), seconds=1.5)
    table = bench(candidate.path, info, pictures, grid, tell=lambda done, total, note: told.append((done, total)))
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert not table.left_out or table.left_out == ("batch 4 with 1 threads: the 1.5 s were over",)
    assert {row.label for row in table.rows} == {"onnxruntime fp32", "onnxruntime int8", "torch"}
    for row in table.rows:
        assert 0 < row.p50_ms <= row.p95_ms
        assert row.images_per_s == pytest.approx(1000 * row.batch / row.p50_ms, rel=0.02)
        assert row.calls >= 3
    assert table.to_json()["rows"][0]["engine"] == "onnxruntime"
    write_plot(table.rows, tmp_path / "speed.svg", title="shapes")
    assert (
        b"onnxruntime int8" in (tmp_path / "speed.svg").read_bytes() or (tmp_path / "speed.svg").stat().st_size > 5000
    )


def test_no_time_and_no_engine_are_said(candidate: Artifact, tmp_path: Path) -> None:
    _, info = open_bundle(candidate.path)
    pictures = [np.zeros((32, 32, 3), dtype=np.uint8)]
    grid = Grid(batches=(1, 2), threads=(1,), engines=("onnxruntime",), seconds=1e-3)
    table = bench(candidate.path, info, pictures, grid)
    assert table.left_out == ("batch 2 with 1 threads: the 0.001 s were over",)
    (tmp_path / "model.onnx").write_bytes(b"no model")
    (tmp_path / "model.int8.onnx").write_bytes(b"no model")
    broken = bench(tmp_path, info, pictures, Grid(batches=(1,), threads=(1,), engines=("onnxruntime",), seconds=1.0))
    assert broken.rows == ()
    assert [line.split(":")[0] for line in broken.left_out] == ["onnxruntime fp32", "onnxruntime int8"]
    with pytest.raises(InputError, match="cannot be written"):
        write_plot([BenchRow("torch", "fp32", 1, 1, 1.0, 1.0, 1.0, 3)], tmp_path / "model.onnx" / "a.png", title="")


def test_a_process_of_its_own_knows_its_own_memory(candidate: Artifact, tmp_path: Path) -> None:
    files = {"fp32": candidate.file("model.onnx"), "int8": candidate.file("model.int8.onnx")}
    ballast = np.ones(60_000_000)  # 480 MB of this process are none of theirs
    found = measure_edge(files, size=(32, 32), lost={"int8": 0.1}, seconds=0.3)
    assert ballast.sum() > 0
    assert [(f.variant, f.lost) for f in found] == [("fp32", 0.0), ("int8", 0.1)]
    assert all(15 < f.peak_mb < 300 and f.ms > 0 for f in found)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(StageError, match="does not run in a process of its own"):
        measure_edge({"fp32": tmp_path / "broken.onnx"}, size=(8, 8), lost={}, seconds=0.1)


def test_a_process_that_hangs_is_given_up(candidate: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_module, "_TIMEOUT_S", 0.05)
    with pytest.raises(StageError, match="does not run in a process of its own") as caught:
        measure_edge({"fp32": candidate.file("model.onnx")}, size=(8, 8), lost={}, seconds=60.0)
    assert caught.value.seen == "model.onnx: no result after 0.05 s"


def test_a_run_for_a_small_machine_is_judged_on_one_thread(inputs: CandidateInputs, tmp_path: Path) -> None:
    spec = ExportSpec(calibration=24, max_drop=0.2, min_speedup=1e-6, target="edge")
    made = make_candidate(spec, inputs, key="shapes/candidates/edge", context=context_in(tmp_path))
    _, info = open_bundle(made.path)
    assert info.int8.conditions is not None
    assert (info.int8.conditions.threads, info.int8.conditions.batch) == (1, 1)
    assert info.int8.reason.startswith("edge: ")
    assert "ms a picture on one thread" in info.int8.reason
    assert info.int8.kept == (info.default_variant == "int8")
