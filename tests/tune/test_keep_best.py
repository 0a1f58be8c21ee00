"""The weights of the best few trials: kept while a sweep runs, written with it, and found again."""

from __future__ import annotations

from pathlib import Path

from autodl_ray.artifacts import Store
from autodl_ray.spec import TuneSpec
from autodl_ray.tune.artifact import best_of, open_sweep, trial_records, write_files
from autodl_ray.tune.records import SweepRun
from autodl_ray.tune.state import SweepState
from autodl_ray.tune.workspace import Workspace

VALUES = (0.5, 0.9, 0.7, 0.8)


def state_of(values: tuple[float, ...] = VALUES) -> SweepState:
    state = SweepState("accuracy", "max", None)
    for number, value in enumerate(values):
        state.apply({"event": "proposed", "number": number, "params": {"lr": number}})
        metrics = {"epoch": 1, "accuracy": value, "macro_f1": value}
        state.apply({"event": "epoch", "trial": f"t{number:04d}", "metrics": metrics})
        state.apply({"event": "ended", "trial": f"t{number:04d}", "status": "finished"})
    return state


def test_the_best_few_are_named_best_first() -> None:
    state = state_of()
    assert state.best_ids(1) == ("t0001",)
    assert state.best_ids(3) == ("t0001", "t0003", "t0002")
    assert state.best_ids(9) == ("t0001", "t0003", "t0002", "t0000")
    assert state_of(()).best_ids(3) == ()


def test_their_weights_are_kept_written_and_found(tmp_path: Path) -> None:
    state, workspace = state_of(), Workspace(tmp_path / "work", tmp_path / "sweep.journal.jsonl")
    for trial in state.trials:
        workspace.trial(trial).mkdir(parents=True)
        (workspace.trial(trial) / "best.safetensors").write_text(trial)
    workspace.keep_only(None, {"t0000", "t0002", "t0003"}, also=state.best_ids(2))
    assert [workspace.weights(t) is not None for t in state.trials] == [False, True, False, True]
    (workspace.trial("t0002")).mkdir()
    (workspace.trial("t0002") / "best.safetensors").write_text("of a trial that may go on")
    records = trial_records(state, workspace, None)
    best = best_of(state, records)
    assert best is not None
    assert [t.id for t in SweepRun(None, records, best).kept] == ["t0001"], "interrupted: the best alone"
    store = Store(tmp_path / "store")
    meta = {"best": best.id}
    with store.write("run/sweep", kind="sweep", spec_digest="", inputs={}, seed=0, meta=meta) as writer:
        write_files(writer.path, records, best, TuneSpec(), keep=state.best_ids(2))
    artifact = store.find("run/sweep")
    assert artifact is not None
    sweep = open_sweep(artifact)
    assert {t.id: t.weights.read_text() for t in sweep.kept if t.weights} == {"t0001": "t0001", "t0003": "t0003"}
    workspace.remove()
    again = trial_records(state, workspace, artifact)
    assert [t.id for t in again if t.weights is not None] == ["t0001", "t0003"], "a sweep that goes on has them"
