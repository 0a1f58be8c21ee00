"""The whole way on digits, as a user types it: the result, the look-up, refusals, kills and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from autodl_ray.data.samples import write_digits

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Nothing here depends on the clock, so that two runs can be compared file by file.
SETTINGS = (
    "train.epochs=4", "train.precision=32", "tune.epochs=2", "tune.num_samples=3", "tune.search=random",
    "tune.scheduler=none", "export.int8=off", "evaluate.bootstrap=100",
)  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digits(folder, n=300)
    return folder


def command(digits: Path, store: Path, *more: str, name: str = "digits") -> list[str]:
    settings = [part for s in SETTINGS for part in ("--set", s)]
    return [
        sys.executable, "-m", "autodl_ray", "run", str(digits), "--store", str(store), "--name", name,
        "--budget", "10m", *settings, *more,
    ]  # fmt: skip


def autodl(digits: Path, store: Path, *more: str, name: str = "digits") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(digits, store, *more, name=name), capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def unbroken(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    store = tmp_path_factory.mktemp("store")
    done = autodl(digits, store, "--json")
    assert done.returncode == 0, done.stderr
    return store, json.loads(done.stdout), done.stderr


def test_a_run_ends_with_everything_that_is_promised(unbroken: tuple[Path, dict[str, Any], str]) -> None:
    store, result, errors = unbroken
    assert errors == ""
    assert result["status"] == "done"
    assert {row["source"].split()[0] for row in result["leaderboard"]} == {"quick", "sweep", "train"}
    run = store / "digits"
    bundle = {p.name for p in (run / "bundle").iterdir()}
    models = {"model.onnx", "model.safetensors"}
    texts = {"bundle", "labels", "manifest", "metrics", "parity", "preprocess", "reference", "smoke", "speed"}
    assert bundle == models | {f"{name}.json" for name in texts} | {"MODEL_CARD.md"}
    assert (run / "train_batch.png").read_bytes().startswith(b"\x89PNG")
    report = {p.name for p in (run / "report").iterdir()}
    curves = {"curves.svg", "curves.png"}  # of a winner that was trained for more than one epoch
    assert report - curves == {"report.json", "report.html", "errors.csv", "predictions.csv", "manifest.json"}
    openings = json.loads((run / "test-openings.json").read_text())
    assert len(openings) == 1, "the test split is opened once"
    assert result["test"]["accuracy"] > 0.5
    assert json.loads((run / "bundle" / "bundle.json").read_text())["dataset_id"] == result["dataset"]
    kept = [p for kind in ("*.json", "*.jsonl", "*.csv") for p in store.rglob(kind) if p.name != "run.json"]
    assert kept
    assert not [p for p in kept if str(store) in p.read_text()], "a store can be moved"


def test_the_same_line_again_is_a_look_up(digits: Path, unbroken: tuple[Path, dict[str, Any], str]) -> None:
    store, result, _ = unbroken
    started = time.monotonic()
    again = autodl(digits, store, "--json")
    assert again.returncode == 0, again.stderr
    repeated = json.loads(again.stdout)
    assert repeated["repeated"] is True
    assert repeated["leaderboard"] == result["leaderboard"]
    assert time.monotonic() - started < 15


def test_another_spec_under_the_same_name_is_refused_with_the_difference(
    digits: Path, unbroken: tuple[Path, dict[str, Any], str]
) -> None:
    store, _, _ = unbroken
    before = (store / "digits" / "run.json").read_bytes()
    other = autodl(digits, store, "--set", "train.lr=0.1")
    assert other.returncode == 2
    assert "train.lr: 'auto' → 0.1" in other.stderr
    assert "--name" in other.stderr
    assert (store / "digits" / "run.json").read_bytes() == before


def test_an_error_that_nobody_foresaw_leaves_a_failed_run(digits: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from autodl_ray.cli import main; from autodl_ray.pipeline import run\n"
        "def broken(*_): raise ZeroDivisionError('a bug')\n"
        "run.quick_model = broken; main(sys.argv[1:])"
    )
    line = [sys.executable, "-c", program, *command(digits, tmp_path)[3:]]
    done = subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError: a bug" in done.stderr
    assert json.loads((tmp_path / "digits" / "run.json").read_text())["status"] == "failed"


def test_killed_in_every_stage_the_same_line_ends_with_the_same_files(
    digits: Path, unbroken: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    reference, result, _ = unbroken
    store = tmp_path / "store"
    run = store / "digits"
    moments: list[Callable[[], bool]] = [
        lambda: _events(run / "sweep.journal.jsonl", "ended") >= 1,
        lambda: _events(run / "train.journal.jsonl", "epoch") >= 1,
        lambda: (run / "train" / "manifest.json").exists(),  # the export comes next
    ]
    for moment in moments:
        _kill_when(moment, command(digits, store))
    moved = tmp_path / "moved"
    store.rename(moved)
    done = autodl(digits, moved, "--json")
    assert done.returncode == 0, done.stderr
    resumed = json.loads(done.stdout)
    ended = [e["trial"] for e in _journal(moved / "digits" / "sweep.journal.jsonl") if e["event"] == "ended"]
    assert len(ended) == len(set(ended)) == 3, "no finished trial is repeated"
    for row in (*resumed["leaderboard"], *result["leaderboard"]):
        row.pop("seconds")
    assert resumed["leaderboard"] == result["leaderboard"]
    for name in ("bundle/model.onnx", "bundle/model.safetensors", "report/predictions.csv"):
        assert (moved / "digits" / name).read_bytes() == (reference / "digits" / name).read_bytes(), name


def test_ctrl_c_once_ends_well_and_twice_at_once(digits: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run = store / "digits"
    endless = ("--set", "tune.num_samples=500", "--set", "tune.epochs=50", "--set", "train.epochs=50")
    process = _start(command(digits, store, *endless))
    _wait(lambda: _events(run / "sweep.journal.jsonl", "epoch") >= 2, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 130, errors
    assert "resume: autodl run" in errors
    assert (run / "bundle" / "manifest.json").exists()
    assert (run / "report" / "report.html").exists()

    known = _events(run / "sweep.journal.jsonl", "epoch")
    process = _start(command(digits, store, *endless))
    _wait(lambda: _events(run / "sweep.journal.jsonl", "epoch") >= known + 2, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert process.returncode == 130
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, "a Ray process was left"


def _start(line: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _wait(moment: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not moment():
        assert process.poll() is None, f"ended too early: {process.communicate()[1]}"
        assert time.monotonic() < deadline, "the moment to act never came"
        time.sleep(0.02)


def _kill_when(moment: Callable[[], bool], line: list[str]) -> None:
    process = _start(line)
    _wait(moment, process)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, f"outlived the driver: {alive}"


def _journal(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # the line that a kill cut short
            continue
    return rows


def _events(file: Path, kind: str) -> int:
    return sum(1 for row in _journal(file) if row["event"] == kind)
