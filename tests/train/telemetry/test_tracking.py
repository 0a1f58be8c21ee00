"""What MLflow is told: a run with its trainings nested in it, once each, and never at the training's expense."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.spec.sections import LogSpec
from autodl_ray.train.telemetry import LogConfig
from autodl_ray.train.telemetry.tracking import Tracker
from tests.train.telemetry.rows import telemetry, train


def config_for(folder: Path, uri: str) -> LogConfig:
    return LogConfig.of(LogSpec(mlflow=uri, every_steps=1), run="photos", folder=folder / "metrics")


def runs_of(store: Path) -> dict[str, Any]:
    """Read the store in a process of its own: importing MLflow leaves threads and handlers behind."""
    code = (
        "import json, sys; from mlflow.tracking import MlflowClient; c = MlflowClient(tracking_uri=sys.argv[1]); "
        "e = c.get_experiment_by_name('autodl_ray').experiment_id; "
        "print(json.dumps({r.info.run_name: {'status': r.info.status, 'id': r.info.run_id, 'metrics': r.data.metrics, "
        "'params': r.data.params, 'tags': r.data.tags, "
        "'epochs': [m.step for m in c.get_metric_history(r.info.run_id, 'accuracy')]} for r in c.search_runs([e])}))"
    )
    env = {**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code, store.as_uri()], capture_output=True, text=True, check=True, env=env, timeout=120
    )
    import json

    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_run_and_its_trials_are_told_once_also_when_it_goes_on(tmp_path: Path) -> None:
    store = tmp_path / "mlruns"
    config = config_for(tmp_path, store.as_uri())
    with Tracker(config) as tracker, telemetry(tmp_path, config.for_trial("sweep", "t0000", {"lr": 0.1})) as one:
        train(one, range(1, 26))
        one.close("finished")
    assert tracker.note is None
    with Tracker(config) as tracker:  # the run goes on: epoch 2 is made again, trial 1 is new and killed
        with telemetry(tmp_path, config.for_trial("sweep", "t0000", {"lr": 0.1})) as one:
            train(one, range(11, 41))
            one.close("finished")
        killed = telemetry(tmp_path, config.for_trial("sweep", "t0001", {"lr": 0.2}))
        train(killed, range(1, 11))
        time.sleep(1.5)
    killed.close()
    assert tracker.note is None, (tmp_path / "metrics" / "mlflow.log").read_text()
    runs = runs_of(store)
    assert {name: run["status"] for name, run in runs.items()} == {
        "photos": "FINISHED", "sweep/t0000": "FINISHED", "sweep/t0001": "KILLED"
    }  # fmt: skip
    first = runs["sweep/t0000"]
    assert first["tags"]["mlflow.parentRunId"] == runs["photos"]["id"]
    assert first["tags"]["autodl.trial"] == "t0000"
    assert first["params"] == {"lr": "0.1"}
    assert first["epochs"] == [1, 2, 3, 4]
    assert first["metrics"]["accuracy"] == pytest.approx(0.8)
    assert {"top5", "recall/003", "grad_norm", "macro_f1"} <= set(first["metrics"])


def test_a_server_that_is_not_there_costs_one_line(tmp_path: Path) -> None:
    config = replace(config_for(tmp_path, "http://127.0.0.1:9"), mlflow="http://someone:secret@127.0.0.1:9")
    with Tracker(config) as tracker, telemetry(tmp_path, config.for_trial("sweep", "t0000", {})) as one:
        train(one, range(1, 11))
    assert one.notes == ()
    assert tracker.note is not None
    assert tracker.note.startswith("MLflow at 127.0.0.1 was not told everything: ")
    assert "\n" not in tracker.note
    assert "secret" not in tracker.note + (tmp_path / "metrics" / "mlflow.log").read_text()


def test_without_an_address_nothing_is_started(tmp_path: Path) -> None:
    with Tracker(LogConfig.of(LogSpec(), run="photos", folder=tmp_path / "metrics")) as tracker:
        pass
    assert tracker.note is None
    assert list(tmp_path.iterdir()) == []
