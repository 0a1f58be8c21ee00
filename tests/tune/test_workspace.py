"""The disk of a sweep stays bounded."""

from __future__ import annotations

import json
from pathlib import Path

from autodl_ray.tune.leaderboard import leaderboard
from autodl_ray.tune.records import TrialRecord
from autodl_ray.tune.workspace import Workspace, free_paused


def test_only_the_best_and_the_running_are_kept(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "work" / "sweep", tmp_path / "sweep.journal.jsonl")
    for trial in ("t0000", "t0001", "t0002", "t0003"):
        space.trial(trial).mkdir(parents=True)
        for name in ("last.pt", "best.safetensors", "progress.json"):
            (space.trial(trial) / name).write_text(trial)
    (space.trial("t0003") / "error.txt").write_text("Traceback")
    space.keep_only("t0001", {"t0000", "t0001", "t0003"})
    left = sorted(p.relative_to(space.folder).as_posix() for p in space.folder.rglob("*") if p.is_file())
    assert left == [
        "t0001/best.safetensors",
        "t0002/best.safetensors",
        "t0002/last.pt",
        "t0002/progress.json",
        "t0003/error.txt",
    ]
    assert space.weights("t0000") is None
    assert space.weights("t0001") == space.folder / "t0001" / "best.safetensors"
    space.remove()
    assert list(tmp_path.iterdir()) == []


def test_only_paused_trials_lose_their_checkpoints(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "work" / "sweep", tmp_path / "sweep.journal.jsonl")
    events = [("t0000", "epoch"), ("t0000", "paused"), ("t0001", "paused"), ("t0001", "resumed"), ("t0002", "epoch")]
    lines = [json.dumps({"event": "begun", "version": 1})]
    lines += [json.dumps({"event": event, "trial": trial}) for trial, event in events]
    space.journal.write_text("\n".join([*lines, '{"event": "pau']))
    for trial in ("t0000", "t0001", "t0002"):
        space.trial(trial).mkdir(parents=True)
        for name in ("last.pt", "last.prev.pt", "best.safetensors"):
            (space.trial(trial) / name).write_text(trial)
    free_paused(tmp_path)
    left = {t: sorted(p.name for p in space.trial(t).iterdir()) for t in ("t0000", "t0001", "t0002")}
    whole = ["best.safetensors", "last.prev.pt", "last.pt"]
    assert left == {"t0000": ["best.safetensors"], "t0001": whole, "t0002": whole}


def test_beginning_anew_keeps_the_old_journal(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "work" / "sweep", tmp_path / "sweep.journal.jsonl")
    for number in range(2):
        space.journal.write_text(str(number))
        space.trial("t0000").mkdir(parents=True)
        space.begin_anew()
        assert not space.folder.exists()
    assert sorted((p.name, p.read_text()) for p in tmp_path.glob("*.jsonl")) == [
        ("sweep.journal.1.jsonl", "0"),
        ("sweep.journal.2.jsonl", "1"),
    ]


def test_the_leaderboard_ranks_by_the_best_epoch_and_puts_failures_last() -> None:
    def record(name: str, value: float | None) -> TrialRecord:
        metrics = {} if value is None else {"epoch": 1, "loss": value}
        return TrialRecord(name, {"lr": 0.1}, "finished" if metrics else "failed", 1, metrics, 1, 2.0)

    rows = leaderboard(
        [record("t0000", 0.5), record("t0001", None), record("t0002", 0.2), record("t0003", 0.5)],
        metric="loss",
        mode="min",
    )
    assert [(r["rank"], r["trial"], r["loss"]) for r in rows] == [
        (1, "t0002", 0.2),
        (2, "t0000", 0.5),
        (3, "t0003", 0.5),
        (None, "t0001", None),
    ]
