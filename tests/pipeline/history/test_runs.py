"""Runs as their files tell them: whole, running, killed and damaged ones, and a hundred of them in a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autodl_ray.errors import StoreError
from autodl_ray.pipeline.history import list_runs, open_run, read_sweep
from tests.pipeline.history.made import SPACE, spec_of, trials_of, value_of, write_journal, write_run


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    trials = trials_of(8)
    write_run(tmp_path, "one", trials=trials, spec=spec_of(seed=3))
    run = open_run(tmp_path, "one")
    assert (run.summary.status, run.summary.data, run.summary.winner) == ("done", "photos", "train")
    assert (run.summary.validation, run.summary.trials, run.spec["seed"]) == (0.9, 8, 3)
    assert list(run.sweeps) == ["sweep", "train"]
    sweep = run.sweeps["sweep"]
    assert [t.params for t in sweep.trials] == trials
    assert (sweep.metric, sweep.mode, sweep.epochs, dict(sweep.space)) == ("accuracy", "max", 3, SPACE)
    whole = [(i, value_of(p) * (1 - 0.2 / (1 if i % 4 == 3 else 3))) for i, p in enumerate(trials)]
    best_first = [f"t{i:04d}" for i, _ in sorted(whole, key=lambda row: -row[1])]
    assert [t.id for t in sweep.ranked()] == best_first
    assert run.winning_row["source"] == "train"
    assert run.decisions[0]["kind"] == "train"


def test_what_was_decided_for_a_trial_is_told_in_order(tmp_path: Path) -> None:
    write_journal(tmp_path, "sweep", trials_of(4))
    sweep = read_sweep(tmp_path, "sweep")
    assert sweep is not None
    steps = [(s.epoch, s.kind, s.detail) for s in sweep.trials[1].steps]
    assert steps == [(1, "paused", "others are better at epoch 1"), (1, "resumed", ""), (3, "finished", "")]
    assert (sweep.trials[3].status, sweep.trials[3].reason, sweep.trials[3].epochs) == ("stopped", "the scheduler", 1)
    assert sweep.trials[0].seconds == 1.5
    assert sweep.trials[0].value("accuracy", "max", until=1) == pytest.approx(0.8 * value_of(sweep.trials[0].params))


def test_a_trial_that_is_paused_says_so(tmp_path: Path) -> None:
    write_journal(tmp_path, "sweep", trials_of(2))
    journal = tmp_path / "sweep.journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    until = next(i for i, line in enumerate(lines) if '"paused"' in line)
    journal.write_text("".join(lines[: until + 1]))
    sweep = read_sweep(tmp_path, "sweep")
    assert sweep is not None
    assert [t.status for t in sweep.trials] == ["finished", "paused"]


def test_an_epoch_that_was_done_again_after_a_kill_counts_once(tmp_path: Path) -> None:
    write_journal(tmp_path, "sweep", trials_of(1))
    again = {"event": "epoch", "trial": "t0000", "metrics": {"epoch": 2, "accuracy": 0.99}}
    with (tmp_path / "sweep.journal.jsonl").open("a") as stream:
        stream.write(json.dumps(again) + "\n")
    sweep = read_sweep(tmp_path, "sweep")
    assert sweep is not None
    assert [row["epoch"] for row in sweep.trials[0].curve] == [1, 2, 3]
    assert sweep.trials[0].value("accuracy", "max") == 0.99


def test_damaged_runs_are_named_and_stop_nobody(tmp_path: Path) -> None:
    for name in ("good", "torn", "gone", "bent"):
        write_run(tmp_path, name, trials=trials_of(4))
    (tmp_path / "torn" / "run.json").write_text('{"status": "do')
    (tmp_path / "gone" / "run.json").unlink()
    (tmp_path / "bent" / "leaderboard.json").write_text("{}")
    runs = {run.name: run for run in list_runs(tmp_path)}
    assert {name: run.status for name, run in runs.items()} == {
        "good": "done", "torn": "damaged", "gone": "damaged", "bent": "done",
    }  # fmt: skip
    assert runs["good"].problems == ()
    assert "run.json is damaged" in runs["torn"].problems[0]
    assert runs["gone"].problems == ("run.json is missing",)
    assert "leaderboard.json holds no JSON list" in runs["bent"].problems[0]
    with pytest.raises(StoreError, match="record of the run is damaged"):
        open_run(tmp_path, "torn")
    assert open_run(tmp_path, "bent").rows == ()


def test_files_of_something_else_are_damage_too(tmp_path: Path) -> None:
    write_run(tmp_path, "good")
    odd = write_run(tmp_path, "odd", trials=trials_of(4))
    with (odd / "sweep.journal.jsonl").open("a") as stream:
        stream.write('{"event": "epoch", "trial": "t0000", "metrics": {}}\n')
    assert open_run(tmp_path, "odd").summary.problems == ("sweep: its events are not understood: KeyError 'epoch'",)
    (odd / "run.json").write_text('{"spec": ["a list"]}')
    assert [run.status for run in list_runs(tmp_path)] == ["done", "damaged"]
    with pytest.raises(StoreError, match="record of the run is damaged"):
        open_run(tmp_path, "odd")


def test_a_damaged_journal_is_replaced_by_the_artifact_where_there_is_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "one", trials=trials_of(4))
    journal = folder / "sweep.journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:7], b"{torn\n", *lines[7:]]))
    run = open_run(tmp_path, "one")
    assert run.summary.problems == ("sweep.journal.jsonl is damaged from line 8 on",)
    assert len(run.sweeps["sweep"].trials) < 4
    (folder / "sweep").mkdir()
    rows = [{"id": f"t{i:04d}", "params": p, "status": "finished", "curve": []} for i, p in enumerate(trials_of(4))]
    (folder / "sweep" / "trials.json").write_text(json.dumps(rows))
    assert len(open_run(tmp_path, "one").sweeps["sweep"].trials) == 4


def test_a_run_whose_process_is_gone_was_killed(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "one")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    assert list_runs(tmp_path)[0].status == "running"
    long_ago = time.time() - 60
    os.utime(folder / "run.json", (long_ago, long_ago))
    assert list_runs(tmp_path)[0].status == "killed"


def test_other_folders_of_a_store_are_no_runs(tmp_path: Path) -> None:
    write_run(tmp_path, "one")
    for name in ("datasets", "cache", "logs", ".hidden", "notes"):
        (tmp_path / name).mkdir()
    assert [run.name for run in list_runs(tmp_path)] == ["one"]


def test_an_unknown_run_is_refused_with_the_near_name(tmp_path: Path) -> None:
    write_run(tmp_path, "photos-base")
    with pytest.raises(StoreError, match="no run of that name") as found:
        open_run(tmp_path, "photos-bose")
    assert found.value.hint == "did you mean 'photos-base'?"
    with pytest.raises(StoreError, match="no run of that name"):
        open_run(tmp_path, "../" + tmp_path.name + "/photos-base")
    with pytest.raises(StoreError, match="no such store"):
        list_runs(tmp_path / "nowhere")


def test_a_hundred_runs_are_listed_within_a_second_and_without_heavy_imports(tmp_path: Path) -> None:
    first = write_run(tmp_path, "r000", trials=trials_of(32))
    for number in range(1, 100):
        folder = tmp_path / f"r{number:03d}"
        folder.mkdir()
        for file in (*first.glob("*.json"), *first.glob("*.jsonl")):
            os.link(file, folder / file.name)
    code = (
        "import sys, time; from pathlib import Path\n"
        "from autodl_ray.pipeline.history import list_runs\n"
        f"began = time.process_time(); runs = list_runs(Path({str(tmp_path)!r}))\n"
        "print(len(runs), time.process_time() - began)\n"
        "print(*{'torch', 'ray', 'pyarrow', 'numpy', 'optuna', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, seconds = done.stdout.splitlines()[0].split()
    assert int(count) == 100
    assert float(seconds) < 1.0
    assert done.stdout.splitlines()[1] == ""
