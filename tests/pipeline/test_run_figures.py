"""A whole run with repeats and limits: its table is that of the delivered file, and its figures can be looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.data import run as make_version
from autodl_ray.data.samples import write_digits
from autodl_ray.images import decode_image
from autodl_ray.models.predictor import Predictor
from autodl_ray.pipeline.history import open_run
from autodl_ray.spec import DataSpec
from autodl_ray.tasks.classification import score
from tests.data.conftest import make_context

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS = (
    "train.epochs=2", "train.precision=32", "tune.epochs=1", "tune.num_samples=3", "tune.search=random",
    "tune.scheduler=none", "evaluate.bootstrap=100", "export.calibration=8", "model.name=small_cnn",
)  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("data") / "digits", n=300)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def autodl(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "autodl_ray", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=280, check=False)


def run_line(digits: Path, store: Path, *more: str) -> subprocess.CompletedProcess[str]:
    settings = [part for s in SETTINGS for part in ("--set", s)]
    where = ("--store", str(store), "--name", "digits", "--budget", "10m", "--json")
    return autodl("run", str(digits), *where, *settings, *more)


@pytest.fixture(scope="module")
def result(digits: Path, store: Path) -> dict[str, Any]:
    done = run_line(digits, store, "--set", "tune.limits={latency_ms: 1000, size_mb: 50}", "--repeat", "3")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_delivered_file_scores_what_the_table_claims(digits: Path, store: Path, result: dict[str, Any]) -> None:
    row = next(r for r in result["leaderboard"] if r["source"] == result["winner"])
    assert row["judged"].startswith("exported")
    version = make_version(DataSpec(path=str(digits)), context=make_context(store))
    assert version.id == result["dataset"]
    predict = Predictor.open(store / "digits" / "bundle")  # as `autodl predict` opens it
    answers = np.concatenate([predict([decode_image(version.val.read(i))]) for i in range(len(version.val))])
    seen = score(answers, version.val.labels)
    assert row["accuracy"] == pytest.approx(seen["accuracy"], abs=1e-4)
    assert row["macro_f1"] == pytest.approx(seen["macro_f1"], abs=1e-4)
    kept = {r["source"] for r in result["leaderboard"] if r["judged"] != "trained"}
    assert {"quick", "train"} <= kept


def test_repeats_have_an_interval_in_record_result_and_report(store: Path, result: dict[str, Any]) -> None:
    repeat = result["repeat"]
    assert [row["replicate"] for row in repeat["replicates"]] == [0, 1, 2]
    train = next(r for r in result["leaderboard"] if r["source"] == "train")
    assert repeat["low"] <= repeat["mean"] <= repeat["high"]
    assert repeat["of"] == "train"
    run = open_run(store, "digits")
    assert run.facts["repeat"] == repeat
    tried = [t.params["replicate"] for t in run.sweeps["repeat"].trials]
    assert tried == [1, 2], "replicate 0 is the final training itself"
    assert train["params"].keys() >= {"lr"}, "the row says with what it was trained"
    page = (store / "digits" / "report" / "report.html").read_text()
    assert "The same settings with other seeds: accuracy " in page
    assert "Limits kept: " in page


def test_the_limits_have_a_table_and_one_file_is_delivered(store: Path, result: dict[str, Any]) -> None:
    limits = result["limits"]
    assert limits["met"]
    chosen = [row for row in limits["rows"] if row["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["source"] == result["winner"]
    assert list(open_bundle(store / "digits" / "bundle")[1].variants) == [chosen[0]["variant"]]
    assert any(row["variant"] == "int8" for row in limits["rows"])


def test_the_run_can_be_looked_at(store: Path, result: dict[str, Any]) -> None:
    shown = autodl("runs", "show", "digits", "--trials", "--store", str(store))
    assert shown.returncode == 0, shown.stderr
    for text in (f"* {result['winner']}", "repeats     accuracy", "keeps the limits", "repeat: trials, best first"):
        assert text in shown.stdout
    listed = json.loads(autodl("runs", "list", "--json", "--store", str(store)).stdout)["runs"]
    assert [(r["name"], r["status"], r["trials"]) for r in listed] == [("digits", "done", 3)]
    assert listed[0]["validation"] == result["leaderboard"][0]["accuracy"]


def test_one_more_repeat_trains_once_more(digits: Path, store: Path, result: dict[str, Any]) -> None:
    done = run_line(digits, store, "--set", "tune.limits={latency_ms: 1000, size_mb: 50}", "--repeat", "4")
    assert done.returncode == 0, done.stderr
    more = json.loads(done.stdout)["repeat"]
    assert more["replicates"][:3] == result["repeat"]["replicates"]
    assert [row["replicate"] for row in more["replicates"]] == [0, 1, 2, 3]
    assert more["line"] in (store / "digits" / "report" / "report.html").read_text()
    assert len(json.loads((store / "digits" / "test-openings.json").read_text())) == 1
