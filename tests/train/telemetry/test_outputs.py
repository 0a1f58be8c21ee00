"""Event files that the real TensorBoard reads, and the one table that pyarrow reads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyarrow import parquet

from autodl_ray.train.telemetry import LogConfig
from autodl_ray.train.telemetry.collect import collect, read_about, trainings
from autodl_ray.train.telemetry.event_files import EVENT_FILES, EventFile
from autodl_ray.train.telemetry.parquet import METRICS
from tests.train.telemetry.rows import telemetry, train

PARAMS = {"lr": 0.1, "optimizer": "sgd", "deep": True, "layers": [1, 2]}


def long_one(folder: Path, trial: str = "t0000", **more: Any) -> LogConfig:
    config = LogConfig(run="r", folder=folder / "metrics", tensorboard=True, every_steps=1, after_s=0.0, **more)
    return config.for_trial("sweep", trial, PARAMS)


def read_events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return found


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    with telemetry(tmp_path, long_one(tmp_path)) as one:
        train(one, range(1, 31))
    assert len(list(one.folder.glob(EVENT_FILES))) == 1
    events = read_events(one.folder)
    tags = set(events.Tags()["scalars"])
    assert {"step/loss", "step/lr/head", "step/grad_norm", "epoch/accuracy", "epoch/top5", "epoch/recall/003"} <= tags
    losses = events.Scalars("step/loss")
    assert [e.step for e in losses] == list(range(1, 31))
    assert losses[9].value == pytest.approx(0.1)
    assert abs(losses[-1].wall_time - time.time()) < 60
    assert [e.step for e in events.Scalars("epoch/accuracy")] == [1, 2, 3]


def test_the_settings_are_a_session_of_the_hparams_dashboard(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    with telemetry(tmp_path, long_one(tmp_path)) as one:
        train(one, range(1, 11))
    metadata = read_events(one.folder).summary_metadata["_hparams_/session_start_info"]
    assert metadata.plugin_data.plugin_name == "hparams"
    start = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info
    assert start.group_name == "sweep/t0000"
    assert start.hparams["lr"].number_value == 0.1
    assert start.hparams["optimizer"].string_value == "sgd"
    assert start.hparams["deep"].bool_value is True
    assert start.hparams["layers"].string_value == "[1, 2]"


def test_after_a_kill_there_is_one_event_file_without_repeats(tmp_path: Path) -> None:
    for steps in (range(1, 26), range(11, 31)):
        with telemetry(tmp_path, long_one(tmp_path)) as one:
            train(one, steps)
    assert len(list(one.folder.glob(EVENT_FILES))) == 1
    assert [e.step for e in read_events(one.folder).Scalars("step/loss")] == list(range(1, 31))


def test_a_record_that_was_damaged_is_seen(tmp_path: Path) -> None:
    with EventFile(tmp_path, params={}, name="x") as events:
        for step in range(1, 5):
            events.step({"step": step, "time": 1.0, "loss": 0.5})
    [path] = tmp_path.glob(EVENT_FILES)
    raw = bytearray(path.read_bytes())
    raw[-10] ^= 1
    path.write_bytes(raw)
    assert [e.step for e in read_events(tmp_path).Scalars("step/loss")] == [1, 2, 3], "the check sums are right"


def test_a_short_training_writes_neither_until_the_sweep_is_over(tmp_path: Path) -> None:
    for trial in ("t0000", "t0001"):
        config = LogConfig(run="r", folder=tmp_path / "metrics", tensorboard=True, every_steps=1)
        with telemetry(tmp_path, config.for_trial("sweep", trial, PARAMS)) as one:
            train(one, range(1, 21))
        assert sorted(p.name for p in one.folder.iterdir()) == ["about.json", "epochs.jsonl", "steps.jsonl"]
    folder = tmp_path / "metrics" / "sweep"
    assert collect(folder, tensorboard=True) == 2
    assert [p.name for p in trainings(folder)] == ["t0000", "t0001"]
    assert read_about(folder / "t0001")["params"] == PARAMS
    assert [e.step for e in read_events(folder / "t0001").Scalars("step/loss")] == list(range(1, 21))
    table = parquet.read_table(folder / METRICS)
    assert set(table.column("trial").to_pylist()) == {"sweep/t0000", "sweep/t0001"}


def test_the_table_has_every_number_once(tmp_path: Path) -> None:
    with telemetry(tmp_path, long_one(tmp_path)) as one:
        train(one, range(1, 21))
    table = parquet.read_table(one.folder / METRICS)
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    text = "dictionary<values=string, indices=int32, ordered=0>"
    assert types == {"trial": text, "kind": text, "epoch": "int32", "step": "int64", "time": "double",
                     "metric": text, "value": "double"}  # fmt: skip
    rows = table.to_pylist()
    losses = [r["value"] for r in rows if (r["kind"], r["metric"]) == ("step", "loss")]
    assert losses == pytest.approx([1 / s for s in range(1, 21)], rel=1e-6)
    recalls = [r["value"] for r in rows if r["metric"] == "recall/003" and r["epoch"] == 2]
    assert recalls == [1.0]
    assert {r["step"] for r in rows if r["kind"] == "epoch"} == {10, 20}
    assert not [r for r in rows if r["metric"] == "recall/005"], "no sample of class 5"


def test_nothing_is_gathered_where_nothing_is(tmp_path: Path) -> None:
    assert collect(tmp_path / "metrics" / "sweep", tensorboard=True) == 0
    assert not (tmp_path / "metrics").exists()


def test_tiny_trainings_import_neither_tensorboard_nor_pandas(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.train.telemetry.rows import *; "
        "from autodl_ray.train.telemetry import LogConfig\n"
        f"with telemetry(Path({str(tmp_path)!r}), LogConfig(tensorboard=True)) as one: train(one, range(1, 21))\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'tensorboard', 'pandas', 'mlflow', 'pynvml', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_real_tensorboard_server_shows_the_run(tmp_path: Path) -> None:
    with telemetry(tmp_path, long_one(tmp_path)) as one:
        train(one, range(1, 21))
    _shows_the_run(tmp_path / "metrics")


def _shows_the_run(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port),
            "--host", "127.0.0.1", "--load_fast", "false"]  # fmt: skip
    server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        address = f"http://127.0.0.1:{port}/data/plugin/scalars"
        tags = _until(lambda: _asked(f"{address}/tags").get(f"sweep{os.sep}t0000"))
        assert {"step/loss", "epoch/accuracy", "step/lr/head"} <= set(tags)
        points = _asked(f"{address}/scalars?run=sweep/t0000&tag=step/loss")
        assert [point[1] for point in points] == list(range(1, 21))
    finally:
        server.terminate()
        server.wait(20)


def _asked(address: str) -> Any:
    try:
        return httpx.get(address, timeout=5, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return {}


def _until(found: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (what := found()):
        assert time.monotonic() < deadline, "TensorBoard shows nothing"
        time.sleep(0.3)
    return what
