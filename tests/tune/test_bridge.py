"""An error of ours between Tune's loop and the engine ends the sweep; nothing waits for ever."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autodl_ray.runtime import StopFlag
from autodl_ray.tune.bridge import FINISHED, Bridge, TrialCall
from autodl_ray.tune.journal import Journal
from tests.tune.simulated import DEFAULTS, opened


def test_a_mistake_in_the_settings_ends_the_sweep_with_that_mistake(tmp_path: Path) -> None:
    def settings(params: Mapping[str, Any]) -> Any:
        if params != DEFAULTS:
            raise ValueError("not this one")
        return dict(params)

    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=3)
        bridge = Bridge(
            engine,
            settings,
            tmp_path / "work",
            2,
            StopFlag(tmp_path / "stop"),
            on_tick=lambda: None,
            on_end=lambda trial: None,
        )
        first = bridge.call("a")
        assert isinstance(first, TrialCall)
        assert first.settings == DEFAULTS
        assert first.folder.is_dir()
        with bridge.guarded():
            bridge.call("b")
        assert str(bridge.error) == "not this one"
        assert engine.active == {"t0000"}
        assert bridge.call("c") == FINISHED


def test_the_wish_to_stop_hands_out_nothing_more_and_keeps_what_was_begun(tmp_path: Path) -> None:
    path, stop = tmp_path / "j.jsonl", StopFlag(tmp_path / "stop")
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=3)
        bridge = Bridge(engine, dict, tmp_path / "work", 2, stop, on_tick=lambda: None, on_end=lambda trial: None)
        assert isinstance(bridge.call("a"), TrialCall)
        stop.set()
        assert bridge.call("b") is None
        assert not bridge.is_late
        bridge.complete("a")
        assert bridge.call("c") == FINISHED
        assert engine.state.trials["t0000"].status == "running"
