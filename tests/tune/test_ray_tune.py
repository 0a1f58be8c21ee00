"""Trials through Ray Tune: whatever happens to them, the journal says so and the sweep ends."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import ray

from autodl_ray.runtime import StopFlag
from autodl_ray.runtime.cluster import ClusterInfo
from autodl_ray.runtime.resources import plan_resources
from autodl_ray.spec import Domain, Float
from autodl_ray.tune.contracts import SearchContext
from autodl_ray.tune.engine import Engine
from autodl_ray.tune.journal import Journal, read_journal
from autodl_ray.tune.proposers import make_proposer
from autodl_ray.tune.ray_tune import TrialJob, run_trials
from autodl_ray.tune.schedulers import make_scheduler
from autodl_ray.tune.state import SweepState, TrialState
from tests.tune.trainables import EPOCHS, Digits

pytestmark = pytest.mark.ray
SPACE: dict[str, Domain] = {"lr": Float(low=1e-3, high=3.0, log=True)}


def sweep(
    folder: Path,
    train: Digits,
    *,
    num_samples: int,
    deadline: float | None = None,
    cpus: float = 2,
    scheduler: str = "asha",
) -> tuple[Engine, list[str]]:
    """Run the trials that the journal in ``folder`` leaves to do; return the engine and the ids that ended."""
    ended: list[str] = []

    def on_end(trial: TrialState) -> None:
        ended.append(trial.id)

    path = folder / "j.jsonl"
    with Journal(path) as journal:
        context = SearchContext(SPACE, "max", 0, EPOCHS, baseline={"lr": 0.5}, num_samples=num_samples)
        state = SweepState("accuracy", "max", make_scheduler(scheduler, context)).fold(read_journal(path))
        engine = Engine(
            state, journal, make_proposer("random", context), SPACE, ({"lr": 0.5},), num_samples, EPOCHS, deadline
        )
        engine.settle()
        run_trials(
            engine,
            TrialJob(train, StopFlag(folder / "stop"), deadline),
            settings=dict,
            folder=folder / "work",
            plan=plan_resources(cpus=cpus, num_samples=num_samples),
            on_tick=lambda: None,
            on_end=on_end,
        )
    return engine, ended


def trained(folder: Path) -> list[tuple[str, int]]:
    """Every epoch that any process trained, in order."""
    rows = (line.split() for line in (folder / "log").read_text().splitlines())
    return [(row[0], int(row[1])) for row in rows]


@pytest.mark.parametrize("cpus", [1, 2])
def test_exactly_n_trials_nothing_printed_and_every_cpu_given_back(
    tmp_path: Path, ray_cluster: ClusterInfo, capfd: pytest.CaptureFixture[str], cpus: float
) -> None:
    before = ray.available_resources()
    capfd.readouterr()
    engine, ended = sweep(tmp_path, Digits(tmp_path / "log"), num_samples=8, cpus=cpus)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert ray.available_resources()["CPU"] == before["CPU"]
    assert sorted(ended) == sorted(engine.state.trials) == [f"t{n:04d}" for n in range(8)]
    assert {t.status for t in engine.state.trials.values()} == {"finished", "stopped"}
    assert engine.state.trials["t0000"].params == {"lr": 0.5}
    processes = {line.split()[2] for line in (tmp_path / "log").read_text().splitlines()}
    assert 1 <= len(processes) <= cpus  # a process serves one trial after another
    assert not (tmp_path / "work" / ".tune").exists()


def test_failed_and_killed_trials_are_told_apart(tmp_path: Path, ray_cluster: ClusterInfo) -> None:
    job = Digits(tmp_path / "log", fail="t0001", die_once="t0002", die="t0003")
    engine, ended = sweep(tmp_path, job, num_samples=5, scheduler="none")
    trials = engine.state.trials
    assert [t.status for t in trials.values()] == ["finished", "failed", "finished", "lost", "finished"]
    assert sorted(ended) == sorted(trials)
    assert trials["t0001"].reason.endswith("ValueError: the wrong shape")
    assert "trainables.py:" in trials["t0001"].reason
    assert "the wrong shape" in (tmp_path / "work" / "t0001" / "error.txt").read_text()
    assert [t.losses for t in trials.values()] == [0, 0, 1, 2, 0]
    assert "its process died" in trials["t0003"].reason
    epochs = [epoch for trial, epoch in trained(tmp_path) if trial == "t0002"]
    assert epochs == list(range(1, EPOCHS + 1))  # it went on from its checkpoint


def test_the_wish_to_stop_ends_it_soon_and_it_goes_on_later(tmp_path: Path, ray_cluster: ClusterInfo) -> None:
    stop = StopFlag(tmp_path / "stop")
    slow = Digits(tmp_path / "log", wait_s=0.5)
    moments: list[float] = []

    def ask() -> None:
        while not (tmp_path / "log").exists():
            time.sleep(0.05)
        moments.append(time.monotonic())
        stop.set()

    asking = threading.Thread(target=ask)
    asking.start()
    engine, ended = sweep(tmp_path, slow, num_samples=4, scheduler="none")
    asking.join()
    assert time.monotonic() - moments[0] < 6
    assert ended == []
    assert {t.status for t in engine.state.trials.values()} == {"running"}
    stop.clear()
    engine, _ = sweep(tmp_path, Digits(tmp_path / "log"), num_samples=4, scheduler="none")
    assert engine.is_done
    assert len(trained(tmp_path)) == len(set(trained(tmp_path))) == 4 * EPOCHS


def test_the_deadline_ends_it_with_what_there_is(
    tmp_path: Path, ray_cluster: ClusterInfo, capfd: pytest.CaptureFixture[str]
) -> None:
    deadline = time.time() + 15
    job = Digits(tmp_path / "log", wait_s=0.3)
    engine, _ = sweep(tmp_path, job, num_samples=50, deadline=deadline, scheduler="none")
    assert time.time() - deadline < 15  # actors that are just starting on a busy machine
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    engine_trials = engine.state.trials.values()
    assert 1 <= len(engine_trials) < 50
    assert any(t.epochs for t in engine_trials)
