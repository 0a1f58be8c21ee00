"""What is tried after workers are lost, and how the end of a group is understood."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from autodl_ray.errors import StageError
from autodl_ray.train.elastic import Attempt, Lost, Restarts, share_of
from autodl_ray.train.errors import WorkerLost, is_out_of_memory
from autodl_ray.train.loop import fit
from tests.train.sources import coloured, config_for


def test_fewer_workers_hold_no_more_than_before() -> None:
    restarts = Restarts(batch_size=32, wanted=4)
    assert restarts.attempt(4) == Attempt(4, None)
    assert restarts.attempt(2) == Attempt(2, 8)  # 16 a worker, 8 at a time
    assert Restarts(batch_size=32, wanted=4, micro_batch=3).attempt(2) == Attempt(2, 3)
    assert share_of(32, 3) == 11


def test_lost_is_tried_again_and_not_for_ever() -> None:
    restarts = Restarts(batch_size=32, wanted=2)
    waits = [restarts.after(Lost("killed"), Attempt(2, None), saved=False) for _ in range(3)]
    assert waits == sorted(waits)
    with pytest.raises(WorkerLost, match=r"lost 4 times[\s\S]*killed[\s\S]*same line again") as caught:
        restarts.after(Lost("killed"), Attempt(2, None), saved=False)
    assert not caught.value.oom
    assert len(restarts.notes) == 4


def test_as_long_as_it_gets_on_it_is_tried_again() -> None:
    restarts = Restarts(batch_size=32, wanted=2)
    for _ in range(20):
        restarts.after(Lost("killed"), Attempt(2, None), saved=True)
    with pytest.raises(WorkerLost, match="lost 21 times"):
        restarts.after(Lost("killed"), Attempt(2, None), saved=True)


def test_out_of_memory_is_tried_once_with_half() -> None:
    restarts = Restarts(batch_size=32, wanted=2)
    restarts.after(Lost("no memory", oom=True), Attempt(2, None), saved=False)
    assert restarts.attempt(2) == Attempt(2, 8)
    assert restarts.notes == ["no memory: the training goes on with 8 samples at a time instead of 16"]
    with pytest.raises(WorkerLost, match="micro_batch_size") as caught:
        restarts.after(Lost("no memory", oom=True), Attempt(2, 8), saved=False)
    assert caught.value.oom


def test_workers_that_settled_it_themselves_are_only_started_again() -> None:
    restarts = Restarts(batch_size=32, wanted=2)
    restarts.after(Lost("no memory", oom=True, settled=True), Attempt(2, None), saved=False)
    assert restarts.attempt(2) == Attempt(2, None)


def test_worker_lost_survives_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(WorkerLost("gone", oom=True, seen="why", hint="again")))
    assert isinstance(error, WorkerLost)
    assert isinstance(error, StageError)
    assert (error.oom, error.seen, error.hint) == (True, "why", "again")


def test_memory_monitor_is_told_from_a_kill() -> None:
    assert is_out_of_memory("1 worker(s) were killed due to the node running low on memory.")
    assert not is_out_of_memory("potential root causes: (1) The process is killed by SIGKILL by OOM killer")


class TestExplain:
    """Of what Ray Train raises (its real classes)."""

    @staticmethod
    def error(*failures: Exception) -> Exception:
        from ray.train.v2.api.exceptions import WorkerGroupError

        return WorkerGroupError("", dict(enumerate(failures)))

    @staticmethod
    def died(text: str) -> Exception:
        from ray.exceptions import RayActorError
        from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

        return WorkerHealthCheckFailedError("A worker failed.", RayActorError(error_msg=text))

    def test_process_that_is_gone_comes_before_its_peers_words(self) -> None:
        from autodl_ray.train.group import explain
        from autodl_ray.train.worker import PeerGone

        lost = explain(self.error(PeerGone("another worker is gone"), self.died("The worker died: SIGKILL")))
        assert lost == Lost("a worker's process is gone (RayActorError: The worker died: SIGKILL)")

    def test_memory_monitor(self) -> None:
        from autodl_ray.train.group import explain

        lost = explain(self.error(self.died("Task was killed due to the node running low on memory.")))
        assert isinstance(lost, Lost)
        assert lost.oom
        assert not lost.settled

    def test_error_of_ours_comes_first(self) -> None:
        from autodl_ray.train.group import explain

        ours = StageError("The training diverged")
        assert explain(self.error(self.died("gone"), ours)) is ours

    def test_no_place_and_out_of_memory(self) -> None:
        from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
        from ray.train.v2.api.exceptions import ControllerError

        from autodl_ray.train.group import explain
        from autodl_ray.train.worker import LeftEarly, OutOfMemory

        lost = explain(ControllerError(WorkerGroupStartupTimeoutError(2)))
        assert lost == Lost("the workers could not be started (WorkerGroupStartupTimeoutError)")
        assert explain(self.error(OutOfMemory("full"))) == Lost("full", oom=True, settled=True)
        assert explain(self.error(LeftEarly("told to"))) == Lost("told to", warned=True)

    def test_anything_else_is_named(self) -> None:
        from autodl_ray.train.group import explain

        made = explain(self.error(ValueError("first\nlast")))
        assert isinstance(made, StageError)
        assert "ValueError: last" in str(made)


@pytest.mark.slow
def test_goes_on_with_one_worker_when_a_node_does_not_come_back(tmp_path: Path) -> None:
    source = coloured(train=71, val=31)
    config = config_for(source, model="pixels", epochs=3, dropout=0.0)
    whole = fit(config, source, folder=tmp_path / "whole", report=lambda row: None, should_stop=lambda: False)
    temporary = tempfile.mkdtemp(prefix="adl")  # short: a socket's path has at most 107 bytes
    command = [sys.executable, "-m", "tests.train.elastic_driver", str(tmp_path), temporary]
    try:
        ended = subprocess.run(
            command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300, check=False
        )
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["status"] == "finished"
    assert [row["epoch"] for row in said["rows"]] == [1, 2, 3]
    assert [row["loss"] for row in said["rows"]] == pytest.approx([row["loss"] for row in whole.history], abs=1e-5)
    assert "1 of 2 workers found a place: the training goes on with them, and the same batch" in said["notes"]
