"""An error of ours between Tune's loop and the engine ends the sweep; nothing waits for ever."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.errors import StoreError
from autodl_ray.runtime import StopFlag
from autodl_ray.runtime.resources import Shares, plan_resources
from autodl_ray.tune.bridge import FINISHED, Answer, Bridge, TrialCall
from autodl_ray.tune.engine import Engine
from autodl_ray.tune.journal import Journal
from autodl_ray.tune.place import MESSAGE, LetGo, Line, TrialJob, _train
from autodl_ray.tune.schedulers import Goal
from tests.tune.simulated import DEFAULTS, opened


def bridge_to(
    engine: Engine,
    folder: Path,
    *,
    settings: Callable[[Mapping[str, Any]], Any] = dict,
    ended: list[str] | None = None,
) -> Bridge:
    """A bridge for two places; trials that ended are noted in ``ended``."""
    return Bridge(
        engine,
        settings,
        folder / "work",
        Shares(plan_resources(cpus=2, num_samples=3)),
        StopFlag(folder / "stop"),
        on_tick=lambda: None,
        on_end=lambda trial: None if ended is None else ended.append(trial.id),
    )


def test_a_mistake_in_the_settings_ends_the_sweep_with_that_mistake(tmp_path: Path) -> None:
    def settings(params: Mapping[str, Any]) -> Any:
        if params != DEFAULTS:
            raise ValueError("not this one")
        return dict(params)

    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=3)
        bridge = bridge_to(engine, tmp_path, settings=settings)
        first = bridge.open("a")
        assert isinstance(first, TrialCall)
        assert first.settings == DEFAULTS
        assert first.folder.is_dir()
        with bridge.guarded():
            bridge.open("b")
        assert str(bridge.error) == "not this one"
        assert engine.active == {"t0000"}
        assert bridge.open("c") == FINISHED


def test_the_wish_to_stop_hands_out_nothing_more_and_keeps_what_was_begun(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=3)
        bridge = bridge_to(engine, tmp_path)
        assert isinstance(bridge.open("a"), TrialCall)
        bridge.stop.set()
        assert bridge.open("b") is None
        assert not bridge.is_late
        bridge.left("a")
        assert bridge.open("c") == FINISHED
        assert engine.state.trials["t0000"].status == "running"


def test_a_place_is_told_what_becomes_of_its_trial_and_which_is_next(tmp_path: Path) -> None:
    path, ended = tmp_path / "j.jsonl", list[str]()
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=3, scheduler="none")
        bridge = bridge_to(engine, tmp_path, ended=ended)
        bridge.open("a")
        bridge.open("b")
        assert bridge.open("c") is None  # two at a time
        assert bridge.answer("a", {"epoch": 1, "accuracy": 0.5}) == Answer("go_on")
        told = bridge.answer("a", {"failed": "x.py:1: ValueError: no", "traceback": "..."})
        assert (told.kind, told.call and told.call.trial, ended) == ("train", "t0002", ["t0000"])
        assert (tmp_path / "work" / "t0000" / "error.txt").read_text() == "..."
        bridge.died("b", "its process died")
        again = bridge.open("d")
        assert isinstance(again, TrialCall)
        assert again.trial == "t0001"
        told = bridge.answer("a", {"done": True})
        assert told == Answer("wait")  # the other place may lose its trial
        assert bridge.answer("a", {"idle": True}) == Answer("wait")
        assert bridge.answer("d", {"done": True}) == Answer("end")
        assert bridge.answer("a", {"idle": True}) == Answer("end")
        bridge.left("a")
        bridge.left("d")
        assert bridge.open("e") == FINISHED
        assert ended == ["t0000", "t0002", "t0001"]


def test_epochs_that_were_held_back_come_before_what_is_said_and_end_with_the_trial(tmp_path: Path) -> None:
    path, order = tmp_path / "j.jsonl", list[str]()
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=3, scheduler="asha")
        bridge = bridge_to(engine, tmp_path, ended=order)
        first = bridge.open("a")
        assert isinstance(first, TrialCall)
        assert first.looks == (1, 3)
        bridge.open("b")
        held = [{"epoch": epoch, "accuracy": 0.9} for epoch in (1, 2)]
        assert bridge.answer("a", {"epoch": 3, "accuracy": 0.9}, before=held) == Answer("go_on")
        assert engine.state.trials["t0000"].epochs == 3
        rows = [{"epoch": 1, "accuracy": 0.1}, {"epoch": 2, "accuracy": 0.95}]  # the first is the end of it
        told = bridge.answer("b", {"failed": "no"}, before=rows, put=lambda answer: order.append(answer.kind))
        assert (told.call and told.call.trial, order) == ("t0002", ["train", "t0001"])
        assert engine.state.trials["t0001"].status == "stopped"
        assert engine.state.trials["t0001"].epochs == 1


def test_a_sweep_with_a_goal_looks_at_every_epoch(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=3, scheduler="asha")
        assert engine.looks == (1, 3)
        engine.goal = Goal("max", target=0.9)
        assert engine.looks is None
        engine.goal = Goal("max")
        assert engine.looks == (1, 3)


def test_what_is_written_together_is_forced_to_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced, path = list[int](), tmp_path / "j.jsonl"
    monkeypatch.setattr("os.fdatasync", lambda file: forced.append(path.read_bytes().count(b"\n")))
    with Journal(path) as journal:
        with journal.together():
            journal.append({"event": "ended"})
            journal.append({"event": "proposed"})
            assert forced == []
        assert forced == [2]
        with journal.together():
            journal.append({"event": "epoch"})  # a moment after the last: at most once a second
        journal.append({"event": "ended"})
    assert forced == [2, 4]


def test_what_cannot_be_forced_to_the_disk_ends_the_place_and_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: int) -> None:
        raise OSError("the disk is gone")

    path, ended = tmp_path / "j.jsonl", list[str]()
    with Journal(path) as journal:
        bridge = bridge_to(opened(journal, path, num_samples=3, scheduler="none"), tmp_path, ended=ended)
        bridge.open("a")
        monkeypatch.setattr("os.fdatasync", broken)
        assert bridge.answer("a", {"failed": "x.py:1: ValueError: no"}) == Answer("end")
        assert isinstance(bridge.error, StoreError)
        bridge.left("a")
        assert bridge.open("b") == FINISHED
    assert ended == []


def line_to(monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> tuple[Line, list[list[dict[str, Any]]]]:
    """A line that is given these answers, and what is said on it."""
    sent, left = list[list[dict[str, Any]]](), iter(answers)
    monkeypatch.setattr("autodl_ray.tune.place.tune.report", lambda row: sent.append(json.loads(row[MESSAGE])))

    class Told:
        def take(self, number: int) -> Answer:
            return next(left)

    return Line(Told()), sent  # type: ignore[arg-type]


def test_a_place_holds_back_what_nobody_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    line, sent = line_to(monkeypatch, Answer("go_on"), Answer("wait"))
    line.begin((1, 3))
    waits = []
    for epoch in (1, 2, 3):
        waits.append(line.may_wait(epoch))
        with contextlib.suppress(LetGo):
            line({"epoch": epoch})
    assert waits == [False, True, False]
    assert sent == [[{"epoch": 1}], [{"epoch": 2}, {"epoch": 3}]]
    assert line.told == Answer("wait")
    line.begin(None)
    assert not line.may_wait(2)


@pytest.mark.parametrize("error", [ValueError("no"), None])
def test_a_trial_that_ends_before_it_reports_says_so_after_one_that_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: ValueError | None
) -> None:
    def train(call: TrialCall, *, report: Line, **_: Any) -> None:
        if call.trial == "t0000":
            report({"epoch": 1})
        if error is not None:
            raise error

    calls = [TrialCall(trial, None, tmp_path) for trial in ("t0000", "t0001")]
    line, sent = line_to(monkeypatch, Answer("train", calls[1]), Answer("end"))
    job = TrialJob(train, StopFlag(tmp_path / "stop"), None)
    assert [_train(job, call, line).kind for call in calls] == ["train", "end"]
    assert len(sent) == 2
    assert ("failed" if error else "done") in sent[1][0]
