"""What every scheduler has to keep to, and what each of them decides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.journal import Journal, read_journal
from autodl_ray.tune.schedulers import SCHEDULERS, Goal, make_scheduler
from autodl_ray.tune.state import SweepState
from tests.tune.simulated import EPOCHS, SPACE, Killed, accuracy, opened, train_all

TRIALS = 12


def swept(path: Path, scheduler: str, *, slots: int = 1, **options: Any) -> SweepState:
    """Run a whole sweep, or what a journal leaves to do of it."""
    score = options.pop("score", accuracy)
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=TRIALS, search="random", scheduler=scheduler, **options)
        train_all(engine, slots=slots, score=score)
        assert engine.is_done
        return engine.state


def available(name: str) -> bool:
    """Whether the classes that this scheduler needs are there."""
    try:
        make_scheduler(name, SearchContext(SPACE, "max", 0, EPOCHS, num_samples=TRIALS))
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("name", [n for n in sorted(SCHEDULERS) if available(n)])
class TestConformance:
    """The contract."""

    @pytest.mark.parametrize("slots", [1, 3])
    def test_every_trial_ends_within_its_epochs_and_one_is_whole(self, tmp_path: Path, name: str, slots: int) -> None:
        state = swept(tmp_path / "j", name, slots=slots)
        assert len(state.trials) == TRIALS
        assert {t.status for t in state.trials.values()} <= {"finished", "stopped"}
        for trial in state.trials.values():
            assert [row["epoch"] for row in trial.curve] == list(range(1, trial.epochs + 1))
            assert (trial.status == "finished") == (trial.epochs == EPOCHS)
            assert trial.status == "finished" or trial.reason
        assert any(t.status == "finished" for t in state.trials.values())

    @pytest.mark.parametrize("slots", [1, 3])
    def test_the_same_reports_give_the_same_verdicts_read_or_lived(self, tmp_path: Path, name: str, slots: int) -> None:
        """Reading a journal gives each verdict that was reached when it was written."""
        swept(tmp_path / "j", name, slots=slots)
        events = read_journal(tmp_path / "j")
        state = SweepState("accuracy", "max", make_scheduler(name, SearchContext(SPACE, "max", 0, EPOCHS)))
        for event, following in zip(events, [*events[1:], {"event": "none"}], strict=True):
            state.apply(event)
            if event["event"] != "epoch":
                continue
            verdict = state.verdicts.get(event["trial"])
            whole = event["metrics"]["epoch"] == EPOCHS
            if verdict is None or whole:
                assert following["event"] not in ("paused",)
                assert following.get("status") != "stopped" or following["trial"] != event["trial"] or whole
            else:
                assert following["trial"] == event["trial"]
                assert following["event"] == {"pause": "paused", "stop": "ended"}[verdict.kind]

    @pytest.mark.parametrize("kill_after", [1, 5, 14, 23, 33])
    def test_killed_and_resumed_it_is_the_same_sweep(self, tmp_path: Path, name: str, kill_after: int) -> None:
        undisturbed = swept(tmp_path / "a", name)
        path = tmp_path / "b"
        with Journal(path) as journal:
            engine = opened(journal, path, num_samples=TRIALS, search="random", scheduler=name)
            with pytest.raises(Killed):
                train_all(engine, kill_after=kill_after)
        assert swept(path, name).trials == undisturbed.trials

    def test_a_value_that_is_no_number_ends_a_trial_unless_nothing_may(self, tmp_path: Path, name: str) -> None:
        def score(params: Mapping[str, Any], epoch: int) -> float:
            return math.nan if params["lr"] > 0.4 and epoch >= 2 else accuracy(params, epoch)

        state = swept(tmp_path / "j", name, score=score, slots=3)
        first = state.trials["t0000"]
        assert first.status == "stopped"
        assert first.epochs <= 2
        best = state.best()
        assert best is not None
        assert best is not first

    def test_falling_is_rising_upside_down(self, tmp_path: Path, name: str) -> None:
        values = {n: [0.1 * ((n * 7) % 5) + 0.05 * e for e in range(EPOCHS)] for n in range(6)}
        kinds = {}
        for mode, sign in (("max", 1.0), ("min", -1.0)):
            rule = make_scheduler(name, SearchContext(SPACE, mode, 0, EPOCHS, num_samples=6))  # type: ignore[arg-type]
            state = SweepState("accuracy", mode, rule)  # type: ignore[arg-type]
            state.fold({"event": "proposed", "number": n, "params": {"lr": 0.1 + n / 100}} for n in values)
            kinds[mode] = []
            for epoch in range(1, EPOCHS):
                for number, curve in values.items():
                    row = {"epoch": epoch, "accuracy": sign * curve[epoch - 1]}
                    state.apply({"event": "epoch", "trial": f"t{number:04d}", "metrics": row})
                    verdict = state.verdicts.get(f"t{number:04d}")
                    kinds[mode].append(verdict.kind if verdict else "go_on")
        assert kinds["max"] == kinds["min"]


def test_promotion_pauses_at_every_rung_and_the_best_goes_to_the_end(tmp_path: Path) -> None:
    state = swept(tmp_path / "j", "asha_promotion")
    events = read_journal(tmp_path / "j")
    assert {t.epochs for t in state.trials.values()} <= {1, 3, EPOCHS}
    paused = [e["trial"] for e in events if e["event"] == "paused"]
    assert len(set(paused)) == TRIALS
    best = max(state.trials.values(), key=lambda t: t.curve[0]["accuracy"])
    assert best.status == "finished"
    left = [t for t in state.trials.values() if t.status == "stopped"]
    assert left[0].reason == f"paused by the scheduler at epoch {left[0].epochs}; others were better"


def test_the_median_rule_stops_what_is_below_the_others(tmp_path: Path) -> None:
    rule = make_scheduler("median", SearchContext({}, "max", 0, 9, grace_period=2))
    history: list[Observed] = []
    for number, level in enumerate((0.5, 0.6, 0.7, 0.1)):
        trial = Observed(number, {}, "running", ((1, level),), level)
        history.append(trial)
        assert rule.report(trial, history).kind == "go_on"  # the grace period
    for number, level in enumerate((0.5, 0.6, 0.7)):
        history[number] = Observed(number, {}, "running", ((1, level), (2, level)), level)
        rule.report(history[number], history)
    late = Observed(3, {}, "running", ((1, 0.1), (2, 0.55)), 0.55)
    verdict = rule.report(late, history)
    assert (verdict.kind, verdict.reason) == ("stop", "its best 0.55 is worse than the median 0.6 of the others")


def test_patience_stops_a_trial_that_gains_nothing(tmp_path: Path) -> None:
    def score(params: Mapping[str, Any], epoch: int) -> float:
        return 0.5 + 0.1 * min(epoch, 3)

    state = swept(tmp_path / "j", "none", patience=2, score=score)
    assert {(t.status, t.epochs) for t in state.trials.values()} == {("stopped", 5)}
    assert state.trials["t0000"].reason == "the scheduler, after epoch 5 (no gain in 2 epochs)"


@pytest.mark.parametrize("slots", [1, 3])
def test_a_reached_target_ends_the_sweep_and_what_runs(tmp_path: Path, slots: int) -> None:
    state = swept(tmp_path / "j", "none", goal=Goal("max", target=0.6), slots=slots)
    assert len(state.trials) < TRIALS
    reasons = {t.reason for t in state.trials.values() if t.status == "stopped"}
    assert len(reasons) == 1
    assert reasons.pop().startswith("the target 0.6 is reached (0.6")
    assert swept(tmp_path / "j", "none", goal=Goal("max", target=0.6)).trials == state.trials
    more = swept(tmp_path / "j", "none")  # without a target it goes on
    assert len(more.trials) == TRIALS


def test_a_plateau_ends_the_sweep(tmp_path: Path) -> None:
    state = swept(tmp_path / "j", "none", goal=Goal("max", plateau=3))
    best = state.best()
    assert best is not None
    assert len(state.trials) == best.number + 1 + 3
    assert Goal("max", plateau=3).reached(state.observed()) == "no new best in 3 trials"
