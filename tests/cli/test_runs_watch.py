"""`autodl runs watch`: a real run of another process, followed to its end; and what is drawn of it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.artifacts import write_atomic
from autodl_ray.cli.runs.drawing import drawn, facts_text, line, sparkline
from autodl_ray.cli.runs.following import Follower, newest_run
from autodl_ray.data.samples import write_digits
from autodl_ray.errors import StoreError

SPEC = {"budget_s": 120.0, "data": {"path": "digits"}, "tune": {"metric": "auto"}, "model": {"name": "auto"}}


def autodl(*words: str) -> list[str]:
    return [sys.executable, "-m", "autodl_ray", *words]


def ask(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(autodl(*words), capture_output=True, text=True, timeout=120, check=False)


class Written:
    """A run as a driver and its trainings write it, a piece at a time."""

    def __init__(self, store: Path, name: str = "photos") -> None:
        self.folder = store / name
        self.folder.mkdir(parents=True)
        self.status("running")

    def status(self, status: str, **more: Any) -> None:
        document = {"spec": SPEC, "dataset": "d", "status": status, "spent_s": 12.5, **more}
        write_atomic(self.folder / "run.json", json.dumps(document))

    def event(self, key: str, **event: Any) -> None:
        with (self.folder / f"{key}.journal.jsonl").open("a") as stream:
            stream.write(json.dumps(event) + "\n")

    def step(self, trial: str, **row: Any) -> None:
        folder = self.folder / "metrics" / trial
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "steps.jsonl").open("a") as stream:
            stream.write(json.dumps(row) + "\n")


@pytest.fixture
def written(tmp_path: Path) -> Written:
    run = Written(tmp_path / "store")
    run.event("sweep", event="begun", version=1, identity={"epochs": 4, "tune": {"metric": "accuracy"}})
    for number in (0, 1):
        run.event("sweep", event="proposed", number=number, params={"lr": 0.1 * (number + 1)})
    for epoch, score in ((1, 0.5), (2, 0.8)):
        run.event("sweep", event="epoch", trial="t0000", metrics={"epoch": epoch, "accuracy": score})
    for step in range(1, 6):
        run.step("sweep/t0000", step=step, epoch=3, loss=1 / step, images_per_s=100.0, data_wait=0.25, eta_s=90.0,
                 cpu_percent=98.0, rss_mb=512.0, **{"lr/head": 0.01, "lr/backbone": 0.001})  # fmt: skip
    return run


def test_everything_that_is_promised_is_seen(written: Written) -> None:
    seen = Follower(written.folder.parent, "photos").look()
    assert (seen.status, seen.stage, seen.seconds, seen.budget_s) == ("running", "search", 12.5, 120.0)
    assert seen.counts == {"running": 2}
    assert [(t.name, t.epoch, t.epochs, t.value) for t in seen.trials] == [
        ("sweep/t0000", 2, 4, 0.8), ("sweep/t0001", 0, 4, None)
    ]  # fmt: skip
    first, second = seen.live
    assert (first.step, first.epoch, first.losses, first.scores) == (5, 3, (1, 1 / 2, 1 / 3, 1 / 4, 1 / 5), (0.5, 0.8))
    assert first.facts["lr"] == 0.01
    assert (second.step, second.epoch, second.facts) == (0, 1, {})
    text = line(seen)
    for wanted in ("photos: search", "best accuracy 0.8000 (sweep/t0000)", "step 5", "100 images/s", "data wait 25 %",
                   "cpu 98 %", "memory 512 MB", "1 min 30 s left"):  # fmt: skip
        assert wanted in text, wanted
    assert json.loads(json.dumps(seen.to_json()))["best"]["name"] == "sweep/t0000"


def test_what_is_drawn_for_a_terminal(written: Written) -> None:
    from rich.console import Console

    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(drawn(Follower(written.folder.parent, "photos").look()))
    text = console.export_text()
    console.file.close()
    assert "12 s of 2 min 00 s" in text
    assert "█" in text
    assert "loss" in text
    assert "0.5 → 0.2" not in text, "the loss began at 1"
    assert "1 → 0.2" in text
    assert "0.500 → 0.800" in text
    assert "lr 0.1" in text


def test_a_look_sees_what_came_meanwhile(written: Written) -> None:
    follower = Follower(written.folder.parent, "photos", most=1)
    assert follower.look().live[0].step == 5
    written.step("sweep/t0000", step=6, epoch=3, loss=0.1)
    with (written.folder / "metrics" / "sweep" / "t0000" / "steps.jsonl").open("a") as stream:
        stream.write('{"step":7,"ep')  # is just being written
    assert follower.look().live[0].step == 6
    written.event("sweep", event="ended", trial="t0000", status="finished", reason="")
    seen = follower.look()
    assert seen.counts == {"finished": 1, "running": 1}
    assert [one.name for one in seen.live] == ["sweep/t0001"]
    assert len(seen.trials) == 1
    written.status("done")
    seen = follower.look()
    assert seen.has_ended
    assert seen.live == ()


@pytest.mark.parametrize(("status", "code", "says"), [("done", 0, ""), ("failed", 1, "The run failed.")])
def test_it_ends_as_the_run_ended(written: Written, status: str, code: int, says: str) -> None:
    written.status(status)
    done = ask("runs", "watch", "photos", "--store", str(written.folder.parent))
    assert done.returncode == code, done.stderr
    assert f"photos: {status}" in done.stdout
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_whose_process_is_gone(written: Written) -> None:
    long_ago = time.time() - 60
    os.utime(written.folder / "run.json", (long_ago, long_ago))
    done = ask("runs", "watch", "--store", str(written.folder.parent))
    assert done.returncode == 1
    assert "The process of the run is gone." in done.stderr


def test_on_a_terminal_the_picture_is_drawn_again_and_again(written: Written) -> None:
    master, slave = pty.openpty()
    line = autodl("runs", "watch", "photos", "--every", "0.1", "--store", str(written.folder.parent))
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "30"}
    process = subprocess.Popen(line, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    shown = b""
    deadline = time.monotonic() + 60
    while b"step 7" not in shown and time.monotonic() < deadline:
        if b"step 5" in shown:
            written.step("sweep/t0000", step=7, epoch=3, loss=0.1)
        shown += os.read(master, 65536)
    written.status("done")
    with contextlib.suppress(OSError):  # how Linux tells the end of a terminal
        while more := os.read(master, 65536):
            shown += more
    os.close(master)
    assert process.wait(30) == 0
    text = shown.decode()
    assert text.count("sweep/t0000 epoch 3 step 5") >= 1
    assert "sweep/t0000 epoch 3 step 7" in text
    assert "\x1b[1A" in text, "the lines before are drawn over"
    assert "done" in text
    assert "Traceback" not in text


def test_names_that_are_not_there(tmp_path: Path, written: Written) -> None:
    with pytest.raises(StoreError, match="no run of that name") as caught:
        Follower(written.folder.parent, "photo").look()
    assert "did you mean 'photos'?" in str(caught.value)
    (tmp_path / "empty").mkdir()
    assert newest_run(tmp_path / "empty") is None
    done = ask("runs", "watch", "--store", str(tmp_path / "empty"))
    assert done.returncode == 2
    assert "The store has no runs yet." in done.stderr


def test_numbers_as_blocks() -> None:
    assert sparkline([0, 1, 2, 3]) == "▁▃▆█"
    assert sparkline([5.0, 5.0]) == "▁▁"
    assert sparkline([]) == sparkline([float("nan")]) == ""
    many = sparkline(list(range(1000)), width=10)
    assert len(many) == 10
    assert many[0] == "▁"
    assert many[-1] == "█"
    assert facts_text({}) == ""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    folder = tmp_path_factory.mktemp("watched")
    write_digits(folder / "digits", n=300)
    # As many epochs as a watcher that looks five times a second cannot miss.
    settings = ("tune.num_samples=2", "tune.epochs=60", "tune.scheduler=none", "train.epochs=60", "export.int8=off",
                "evaluate.bootstrap=100")  # fmt: skip
    sets = [word for setting in settings for word in ("--set", setting)]
    process = subprocess.Popen(
        autodl("run", str(folder / "digits"), "--store", str(folder / "store"), "--name", "digits", "--budget", "10m",
               *sets), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process, folder / "store"
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_real_run_is_followed_to_its_end(running: tuple[subprocess.Popen[str], Path]) -> None:
    process, store = running
    deadline = time.monotonic() + 60
    while not (store / "digits" / "run.json").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    watched = subprocess.run(
        autodl("runs", "watch", "digits", "--store", str(store), "--json", "--every", "0.2"),
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert watched.returncode == 0, watched.stderr
    seen = [json.loads(text) for text in watched.stdout.splitlines()]
    assert [s["status"] for s in seen[-1:]] == ["done"]
    assert {s["stage"] for s in seen} >= {"search", "done"}
    assert max(sum(s["counts"].values()) for s in seen) >= 2
    assert seen[-1]["best"]["value"] > 0.3
    losses = [one["facts"]["loss"] for s in seen for one in s["live"] if "loss" in one["facts"]]
    assert losses, "the trainings were seen while they ran"
    assert process.wait(60) == 0
    metrics = store / "digits" / "metrics" / "sweep"
    assert (metrics / "metrics.parquet").exists()
    assert {p.name for p in metrics.iterdir() if p.is_dir()} == {"t0000", "t0001"}
    again = ask("runs", "watch", "--store", str(store), "--once")
    assert again.returncode == 0
    assert "digits" in again.stdout
    assert "sweep/t0001" in again.stdout
