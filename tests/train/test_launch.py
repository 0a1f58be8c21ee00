"""One worker in this process and two in a worker group train alike, and report to the same caller."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.errors import StageError
from autodl_ray.runtime import StopFlag
from autodl_ray.train.launch import _watch, launch
from autodl_ray.train.relay import Relay
from autodl_ray.train.result import FitResult
from tests.train.sources import ArraySource, coloured, config_for


def train(source: ArraySource, folder: Path, *, workers: int, rows: list[dict[str, Any]], **options: Any) -> FitResult:
    config = config_for(source, model="pixels", epochs=2, dropout=0.0, **options.pop("config", {}))
    return launch(
        config,
        source,
        folder=folder,
        num_workers=workers,
        resources_per_worker={"CPU": 0.5},
        report=rows.append,
        should_stop=lambda: False,
    )


@pytest.mark.ray
def test_one_and_two_workers_have_the_same_losses(ray_cluster: object, tmp_path: Path) -> None:
    source = coloured(train=71, val=31)
    rows: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    results = {n: train(source, tmp_path / str(n), workers=n, rows=rows[n]) for n in (1, 2)}
    for one, two in zip(rows[1], rows[2], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert two["train_loss"] == pytest.approx(one["train_loss"], abs=1e-5)
        assert two["accuracy"] == one["accuracy"]
    assert results[1].epochs == results[2].epochs == 2
    assert (tmp_path / "2" / "best.safetensors").exists()


class _Waiting:
    """Trains like a group that reports one epoch and then goes on until it is asked to stop."""

    def __init__(self, folder: Path, stop: StopFlag) -> None:
        self.folder, self.stop, self.stopped = folder, stop, False

    def fit(self) -> None:
        (self.folder / "reports.jsonl").write_text('{"epoch": 1}\n{"epo')
        while not self.stop.is_set():
            time.sleep(0.01)
        self.stopped = True


def test_report_runs_here_and_may_end_the_training(tmp_path: Path) -> None:
    seen: list[tuple[str, Any]] = []
    stop = StopFlag(tmp_path / ".stop")
    group = _Waiting(tmp_path, stop)

    def report(row: dict[str, Any]) -> None:
        seen.append((threading.current_thread().name, row))
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        _watch(group, Relay(tmp_path, report, last=0), stop=stop, should_stop=lambda: False)
    assert seen == [(threading.current_thread().name, {"epoch": 1})]
    assert group.stopped


def test_wish_to_stop_reaches_the_workers(tmp_path: Path) -> None:
    stop = StopFlag(tmp_path / ".stop")
    group = _Waiting(tmp_path, stop)
    _watch(group, Relay(tmp_path, lambda row: None, last=0), stop=stop, should_stop=lambda: True)
    assert group.stopped


def test_an_epoch_is_told_once_whichever_group_wrote_it(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    relay = Relay(tmp_path, told.append, last=1)
    (tmp_path / "reports.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    relay.pass_on()
    relay.catch_up([{"epoch": 1}, {"epoch": 2}, {"epoch": 3}])  # the third was saved, its row was not written
    relay.begin_again(1)
    (tmp_path / "reports.jsonl").write_text('{"epoch": 3}\n{"epoch": 4}\n')
    relay.pass_on()
    assert told == [{"epoch": 2}, {"epoch": 3}, {"epoch": 4, "restarts": 1}]


@pytest.mark.ray
def test_error_of_a_worker_is_ours(ray_cluster: object, tmp_path: Path) -> None:
    bad = {"optimizer": "sgd", "lr": 1e30, "grad_clip": 0.0, "schedule": "constant"}
    with pytest.raises(StageError, match="diverged"):
        train(coloured(), tmp_path, workers=2, rows=[], config=bad)
