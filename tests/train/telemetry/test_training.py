"""Real trainings: what they keep of their steps, also when they are killed in the middle and go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autodl_ray.train.loop import fit
from autodl_ray.train.telemetry import LogConfig
from autodl_ray.train.telemetry.rows import EPOCHS, STEPS, read_rows
from tests.train.sources import config_for, digits
from tests.train.telemetry.rows import lines

ENDLESS = """
import sys
from pathlib import Path
from autodl_ray.train.loop import fit
from autodl_ray.train.telemetry import LogConfig
from tests.train.sources import config_for, digits
source = digits()
fit(config_for(source, epochs=60), source, folder=Path(sys.argv[1]), report=lambda row: None,
    should_stop=lambda: False, num_threads=1, log=LogConfig(every_steps=1))
"""


def test_a_training_tells_more_than_twenty_metrics(tmp_path: Path) -> None:
    source = digits()
    before = threading.active_count()
    result = fit(
        config_for(source, epochs=2), source, folder=tmp_path, report=lambda row: None, should_stop=lambda: False,
        num_threads=1, log=LogConfig(every_steps=1),
    )  # fmt: skip
    assert threading.active_count() == before
    steps, epochs = lines(tmp_path / "metrics" / STEPS), lines(tmp_path / "metrics" / EPOCHS)
    assert [row["step"] for row in steps] == list(range(1, 89))
    assert {"loss", "accuracy", "grad_norm", "weight_norm", "update_ratio", "images_per_s", "data_wait", "step_s",
            "skipped_steps", "eta_s"} <= set(steps[-1])  # fmt: skip
    assert any(name.startswith("lr/") for name in steps[-1])
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert steps[-1]["update_ratio"] > 0
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert len(set(steps[-1]) | set(epochs[-1])) > 20
    kept = json.loads((tmp_path / "curves.json").read_text())
    assert kept == [dict(row) for row in result.history], "the report draws what the telemetry added"
    assert {"top5", "recall_min", "grad_norm", "train_accuracy"} <= set(kept[-1])
    assert kept[-1]["top5"] >= kept[-1]["accuracy"]


def test_metrics_change_nothing_of_what_is_learned(tmp_path: Path) -> None:
    source = digits()
    rows = []
    for name, log in (("on", LogConfig(every_steps=1)), ("off", LogConfig(enabled=False))):
        result = fit(
            config_for(source, epochs=2), source, folder=tmp_path / name, report=lambda row: None,
            should_stop=lambda: False, num_threads=1, log=log,
        )  # fmt: skip
        rows.append([(row["loss"], row["train_loss"], row["accuracy"]) for row in result.history])
    assert rows[0] == rows[1]
    assert not (tmp_path / "off" / "metrics").exists()
    weights = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("on", "off")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_killed_training_goes_on_without_a_gap_or_a_repeat(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(read_rows(tmp_path / "metrics" / EPOCHS)) < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = read_rows(tmp_path / "metrics" / STEPS)
    assert left, "rows survive a kill -9"
    source, ended = digits(), [0]

    def should_stop() -> bool:
        return ended[0] >= 1

    def report(row: dict[str, object]) -> None:
        ended[0] += 1

    result = fit(
        config_for(source, epochs=60), source, folder=tmp_path, report=report, should_stop=should_stop, num_threads=1,
        log=LogConfig(every_steps=1),
    )  # fmt: skip
    steps = [row["step"] for row in lines(tmp_path / "metrics" / STEPS)]
    assert steps == list(range(1, len(steps) + 1)), "each step once, in order"
    assert steps[-1] == 44 * result.epochs
    assert [row["epoch"] for row in lines(tmp_path / "metrics" / EPOCHS)] == list(range(1, result.epochs + 1))
