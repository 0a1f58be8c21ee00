"""What is recorded of a training: its rows, their columns, and what a kill, a full disk or a long time do to them."""

from __future__ import annotations

import math
import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from autodl_ray.errors import MissingExtraError
from autodl_ray.spec.sections import LogSpec
from autodl_ray.train.telemetry import LogConfig, StepFacts, Telemetry
from autodl_ray.train.telemetry.columns import COLUMNS, meaning
from autodl_ray.train.telemetry.pace import Pace
from autodl_ray.train.telemetry.rows import EPOCHS, STEPS, append_rows, cut_from, read_rows, thin
from autodl_ray.train.telemetry.writer import MAX_STEP_ROWS
from tests.train.telemetry.rows import facts, lines, telemetry, train


def test_more_than_twenty_metrics_and_each_has_a_meaning(tmp_path: Path) -> None:
    with telemetry(tmp_path) as one:
        train(one, range(1, 11))
        time.sleep(0.9)  # the machine is looked at after a quarter second, and its shares after another
        train(one, range(11, 21))
    steps, epochs = lines(one.folder / STEPS), lines(one.folder / EPOCHS)
    names = {name for row in (*steps, *epochs) for name in row} - {"step", "epoch", "time"}
    assert len(names) > 20, names
    assert {name for name in names if not meaning(name)} == set()
    assert {"loss", "accuracy", "grad_norm", "weight_norm", "update_ratio", "loss_scale", "lr/backbone", "lr/head",
            "images_per_s", "data_wait", "step_s", "skipped_steps", "eta_s"} <= set(steps[0])  # fmt: skip
    assert {"cpu_percent", "rss_mb", "disk_free_gb", "disk_used_mb", "memory_free_mb"} <= set(steps[-1])
    assert {"top5", "macro_f1", "recall", "recall_min", "balanced_accuracy", "train_accuracy"} <= set(epochs[0])
    assert len(COLUMNS) > 30


def test_scores_of_an_epoch_are_those_of_its_validation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.ones(8), 200).astype(np.float32)
    labels = rng.integers(0, 7, 200)  # no sample of class 7
    with telemetry(tmp_path) as one:
        added = one.epoch({"epoch": 1}, probabilities=chances, labels=labels)
    from sklearn.metrics import recall_score, top_k_accuracy_score

    wanted = recall_score(labels, chances.argmax(1), labels=range(7), average=None)
    assert added["recall"][:7] == pytest.approx(wanted.tolist(), abs=1e-6)
    assert added["recall"][7] is None
    assert added["recall_min"] == pytest.approx(wanted.min(), abs=1e-6)
    assert added["balanced_accuracy"] == pytest.approx(wanted.mean(), abs=1e-6)
    assert added["top5"] == pytest.approx(top_k_accuracy_score(labels, chances, k=5, labels=range(8)), abs=1e-6)


def test_few_classes_have_a_top_k_and_many_only_a_summary(tmp_path: Path) -> None:
    with telemetry(tmp_path) as one:
        few = one.epoch({"epoch": 1}, probabilities=np.array([[0.9, 0.1], [0.8, 0.2]]), labels=np.array([0, 1]))
        many = one.epoch({"epoch": 2}, probabilities=np.eye(101), labels=np.arange(101))
        none = one.epoch({"epoch": 3}, probabilities=np.zeros((0, 3)), labels=np.zeros(0, np.int64))
    assert few["top5"] == 1.0
    assert few["recall"] == [1.0, 0.0]
    assert "recall" not in many
    assert many["recall_min"] == 1.0
    assert "top5" not in none


def test_a_row_holds_the_means_since_the_row_before(tmp_path: Path) -> None:
    with telemetry(tmp_path, LogConfig(every_steps=2)) as one:
        for step, loss, samples, skipped in ((1, 4.0, 30, True), (2, 1.0, 10, False), (3, 9.0, 10, False)):
            norm = math.inf if skipped else 3.0
            one.step(facts(step, loss=loss, samples=samples, skipped=skipped, grad_norm=norm, step_s=0.5, wait_s=0.1))
        added = one.epoch({"epoch": 1})
    [row] = lines(one.folder / STEPS)
    assert row["step"] == 2
    assert row["loss"] == pytest.approx((4 * 30 + 1 * 10) / 40)
    assert row["images_per_s"] == pytest.approx(40)
    assert row["data_wait"] == pytest.approx(0.2)
    assert row["skipped_steps"] == 1
    assert added["grad_norm"] == 3.0, "a skipped step has no gradient to speak of"
    assert added["skipped_steps"] == 1
    assert added["step_s"] == pytest.approx(0.5)


def test_what_goes_on_repeats_no_step(tmp_path: Path) -> None:
    with telemetry(tmp_path) as one:
        train(one, range(1, 36))
    path = one.folder / STEPS
    path.write_bytes(path.read_bytes() + b'{"step":36,"epo')  # torn by a kill
    with telemetry(tmp_path) as one:  # its checkpoint was of step 20
        train(one, range(21, 51))
    assert [row["step"] for row in lines(path)] == list(range(1, 51))
    assert [row["epoch"] for row in lines(one.folder / EPOCHS)] == [1, 2, 3, 4, 5]


def test_rows_are_on_the_disk_within_a_second_or_so(tmp_path: Path) -> None:
    one = telemetry(tmp_path)
    try:
        train(one, range(1, 6))
        deadline = time.monotonic() + 10
        while len(read_rows(one.folder / STEPS)) < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(read_rows(one.folder / STEPS)) == 5, "a kill -9 now would lose nothing"
    finally:
        one.close()


def test_no_thread_is_left(tmp_path: Path) -> None:
    before = threading.active_count()
    for number in range(3):
        with telemetry(tmp_path / str(number)) as one:
            train(one, range(1, 4))
            assert threading.active_count() == before + 1
        one.close()
    assert threading.active_count() == before
    one = telemetry(tmp_path / "failed")
    with pytest.raises(ValueError, match="diverged"):
        _fail(one)
    assert threading.active_count() == before
    assert '"status": "failed"' in (one.folder / "about.json").read_text()


def _fail(one: Telemetry) -> None:
    with one:
        train(one, range(1, 4))
        raise ValueError("diverged")


def test_only_rank_0_writes(tmp_path: Path) -> None:
    with telemetry(tmp_path, rank=1) as one:
        assert not one.wants_step(1)
        train(one, range(1, 21))
        added = one.epoch({"epoch": 3}, probabilities=np.eye(3), labels=np.arange(3))
    assert added == {"top5": 1.0, "balanced_accuracy": 1.0, "recall_min": 1.0, "recall": [1.0, 1.0, 1.0]}
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_note_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("a file where the folder should be")
    with telemetry(tmp_path) as one:
        train(one, range(1, 21))
    assert len(one.notes) == 1
    assert one.notes[0].startswith("live metrics are no longer written: FileExistsError")


def test_a_long_training_has_no_more_rows_than_it_may(tmp_path: Path) -> None:
    now = [0.0]
    one = telemetry(tmp_path, LogConfig())
    one._pace = Pace(None, clock=lambda: now[0])
    with one:
        for step in range(1, 3 * MAX_STEP_ROWS):
            now[0] += 2.0  # s a step: every one is due
            one.wants_step(step)
            one.step(facts(step))
            if step % 1000 == 0:
                time.sleep(0.3)
    steps = [row["step"] for row in lines(one.folder / STEPS)]
    assert MAX_STEP_ROWS / 3 < len(steps) <= MAX_STEP_ROWS
    assert steps == sorted(set(steps))
    assert steps[0] == 1
    assert steps[-1] > 3 * MAX_STEP_ROWS - 10


def test_the_first_rows_are_close_and_then_one_a_second() -> None:
    now = [0.0]
    pace = Pace(None, clock=lambda: now[0])
    wanted = []
    for step in range(1, 10_001):  # of 1 ms
        if pace.wants(step):
            wanted.append(step)
        now[0] += 0.001
    assert wanted[0] == 1
    assert sum(step <= 500 for step in wanted) in range(5, 9)
    assert len(wanted) < 20
    assert wanted[-1] - wanted[-2] in range(1000, 1003)
    assert [s for s in range(1, 31) if Pace(10).wants(s)] == [10, 20, 30]


def test_a_step_without_a_row_costs_next_to_nothing(tmp_path: Path) -> None:
    with telemetry(tmp_path, LogConfig(every_steps=10**9)) as one:
        best = math.inf
        for attempt in range(5):
            started = time.perf_counter()
            for step in range(1, 2001):
                one.wants_step(step)
                one.step(StepFacts(step, 1, 1.0, 32, 0.001, 0.01, grad_norm=1.0))
            best = min(best, (time.perf_counter() - started) / 2000)
            assert attempt >= 0
    assert best < 2e-5, f"{1e6 * best:.1f} µs a step (a step of the smallest network takes 1,000)"


def test_rows_are_cut_and_thinned_in_place(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    assert cut_from(path, "step", 1) == 0
    append_rows(path, [{"step": s, "value": s / 3, "bad": math.nan} for s in range(1, 10)])
    assert read_rows(path)[2] == {"step": 3, "value": 1.0, "bad": None}
    assert cut_from(path, "step", 8) == 7
    assert thin(path) == 4
    assert [row["step"] for row in read_rows(path)] == [1, 3, 5, 7]
    path.write_bytes(b'{"step":1}\nnot a row\n{"step":3}\n')
    assert [row["step"] for row in read_rows(path)] == [1, 3]


def test_the_configuration_travels_and_knows_its_place(tmp_path: Path) -> None:
    config = LogConfig.of(LogSpec(every_steps=7), run="photos", folder=tmp_path / "metrics")
    mine = config.for_trial("sweep", "t0003", {"lr": 0.1})
    assert pickle.loads(pickle.dumps(mine)) == mine
    assert mine.folder == tmp_path / "metrics" / "sweep" / "t0003"
    assert (mine.name, mine.every_steps, mine.tensorboard) == ("sweep/t0003", 7, True)
    assert Telemetry(tmp_path, LogConfig(), rank=1, device="cpu", num_samples=1).folder == tmp_path / "metrics"


def test_a_tracking_uri_is_the_same_everywhere_and_stays_with_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = LogConfig.of(LogSpec(mlflow="file:mlruns"), run="r", folder=tmp_path)
    assert config.mlflow == (tmp_path / "mlruns").as_uri()
    assert LogConfig.of(LogSpec(mlflow="mlruns"), run="r", folder=tmp_path).mlflow == config.mlflow
    assert LogConfig.of(LogSpec(mlflow="http://h:5000"), run="r", folder=tmp_path).mlflow == "http://h:5000"
    assert config.for_trial("sweep", "t0000", {}).mlflow is None


def test_mlflow_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="MLflow is not installed") as caught:
        LogConfig.of(LogSpec(mlflow="http://h:5000"), run="r", folder=tmp_path)
    assert "autodl_ray[mlflow]" in str(caught.value)


def test_a_password_in_the_address_is_refused() -> None:
    with pytest.raises(ValidationError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        LogSpec(mlflow="http://u:secret@h:5000")
    assert "leave it to the environment" in str(caught.value)
