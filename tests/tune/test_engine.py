"""The journal is the state: killed anywhere, the sweep goes on as if it had not been."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from autodl_ray.errors import StoreError
from autodl_ray.tune.journal import Journal, read_journal
from autodl_ray.tune.space import fingerprint
from autodl_ray.tune.state import SweepState
from tests.tune.simulated import DEFAULTS, EPOCHS, SPACE, Killed, accuracy, opened, train_all


def whole_sweep(path: Path, **options: object) -> SweepState:
    """Run a sweep that nobody disturbs."""
    with Journal(path) as journal:
        engine = opened(journal, path, **options)  # type: ignore[arg-type]
        train_all(engine)
        assert engine.is_done
        return engine.state


@pytest.mark.parametrize("search", ["tpe", "random"])
def test_exactly_n_distinct_trials_and_the_first_is_the_defaults(tmp_path: Path, search: str) -> None:
    state = whole_sweep(tmp_path / "j.jsonl", num_samples=20, search=search)
    assert list(state.trials) == [f"t{n:04d}" for n in range(20)]
    assert state.trials["t0000"].params == DEFAULTS
    assert len({fingerprint(t.params) for t in state.trials.values()}) == 20
    statuses = {t.status for t in state.trials.values()}
    assert statuses == {"finished", "stopped"}
    best = state.best()
    assert best is not None
    assert state.value(best) == max(accuracy(t.params, t.epochs) for t in state.trials.values())


@pytest.mark.parametrize("search", ["tpe", "random"])
@pytest.mark.parametrize("kill_after", [0, 1, 2, 7, 13, 31, 47])
def test_killed_and_resumed_it_is_the_same_sweep_and_no_epoch_is_trained_twice(
    tmp_path: Path, search: str, kill_after: int
) -> None:
    undisturbed = whole_sweep(tmp_path / "a.jsonl", num_samples=16, search=search)
    path, trained = tmp_path / "b.jsonl", list[tuple[str, int]]()
    with Journal(path) as journal, pytest.raises(Killed):
        train_all(opened(journal, path, num_samples=16, search=search), kill_after=kill_after, trained=trained)
    with path.open("ab") as stream:
        stream.write(b'{"event":"epoch","trial":"t00')  # the line that the kill tore
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=16, search=search)
        train_all(engine, trained=trained)
    assert engine.state.trials == undisturbed.trials
    assert len(trained) == len(set(trained)) == sum(t.epochs for t in undisturbed.trials.values())


def test_every_prefix_of_a_journal_can_be_gone_on_with(tmp_path: Path) -> None:
    whole_sweep(tmp_path / "a.jsonl", num_samples=8)
    lines = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    for cut in range(len(lines)):
        path = tmp_path / "b.jsonl"
        path.write_text("".join(lines[:cut]))
        before = {t.id for t in _folded(path).trials.values() if t.status != "running"}
        trained: list[tuple[str, int]] = []
        with Journal(path) as journal:
            train_all(opened(journal, path, num_samples=8), trained=trained)
        assert not before & {trial for trial, _ in trained}
        assert path.read_text() == "".join(lines)


def _folded(path: Path) -> SweepState:
    return SweepState("accuracy", "max", None).fold(read_journal(path))


def test_more_trials_extend_a_finished_sweep(tmp_path: Path) -> None:
    path, trained = tmp_path / "j.jsonl", list[tuple[str, int]]()
    first = whole_sweep(path, num_samples=6)
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=10)
        train_all(engine, trained=trained)
    assert {trial for trial, _ in trained} == {"t0006", "t0007", "t0008", "t0009"}
    assert all(engine.state.trials[i] == t for i, t in first.trials.items())


def test_a_lost_trial_is_begun_once_more_and_not_scored(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=2)
        first = engine.next_trial()
        assert first is not None
        engine.report(first.id, {"epoch": 1, "accuracy": 0.5})
        engine.lost(first.id, "its process died")
        again = engine.next_trial()
        assert again is first
        assert first.epochs == 1
        engine.lost(first.id, "its process died")
        assert first.status == "lost"
        train_all(engine)
    assert engine.is_done
    assert engine.state.observed()[0].status == "failed"


def test_checkpoints_of_paused_trials_deleted_cost_epochs_and_change_nothing(tmp_path: Path) -> None:
    """The disk limit may take the checkpoint of any paused trial: it is made again and not judged twice."""
    boards, made = [], []
    for name, lose in (("undisturbed", False), ("lost", True)):
        path = tmp_path / f"{name}.jsonl"
        at: dict[str, int] = {}  # the epoch of each checkpoint
        epochs = 0
        with Journal(path) as journal:
            engine = opened(journal, path, num_samples=12, search="curves", scheduler="freeze_thaw")
            while (trial := engine.next_trial()) is not None:
                goes_on = True
                while goes_on and at.get(trial.id, 0) < EPOCHS:
                    epoch = at[trial.id] = at.get(trial.id, 0) + 1
                    epochs += 1
                    goes_on = engine.report(trial.id, {"epoch": epoch, "accuracy": accuracy(trial.params, epoch)})
                if goes_on:
                    engine.ended(trial.id)
                elif lose:
                    at.pop(trial.id)
            boards.append([(t.id, t.params, t.epochs, engine.state.value(t)) for t in engine.state.trials.values()])
        made.append(epochs)
    assert boards[0] == boards[1]
    assert made[1] > made[0]


def test_a_failed_trial_does_not_end_the_sweep_and_an_interrupted_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=3)
        first, second = engine.next_trial(), engine.next_trial()
        assert first is not None
        assert second is not None
        engine.failed(first.id, "model.py:3: ValueError: no")
        engine.let_go(second.id)
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=3)
        assert engine.state.trials[first.id].reason == "model.py:3: ValueError: no"
        assert engine.next_trial() == second


def test_no_trial_starts_that_cannot_make_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=3, deadline=time.time() + 60)
        assert not engine.time_is_up
        trial = engine.next_trial()
        assert trial is not None
        engine.report(trial.id, {"epoch": 1, "accuracy": 0.5, "epoch_s": 100.0})
        assert engine.time_is_up
        engine.ended(trial.id)
        assert (trial.status, trial.reason) == ("stopped", "the time was up")


def test_fewer_epochs_planned_for_the_deadline_is_a_whole_trial(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=1, scheduler="none")
        trial = engine.next_trial()
        assert trial is not None
        engine.report(trial.id, {"epoch": 1, "accuracy": 0.5, "epochs_planned": EPOCHS})
        engine.report(trial.id, {"epoch": 2, "accuracy": 0.6, "epochs_planned": 2})
        engine.ended(trial.id)
        assert trial.status == "finished"


def test_a_single_training_without_ranges_is_one_trial(tmp_path: Path) -> None:
    state = whole_sweep(tmp_path / "j.jsonl", num_samples=5, space={}, defaults=DEFAULTS)
    assert [t.params for t in state.trials.values()] == [DEFAULTS]


def test_damage_in_the_middle_and_a_newer_version_are_named(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text('{"event":"begun"}\n{"event":\n{"event":"lost","trial":"t0000"}\n')
    with pytest.raises(StoreError, match="damaged") as caught:
        read_journal(path)
    assert "line 2" in str(caught.value)
    path.write_text(json.dumps({"event": "begun", "version": 99}) + "\n")
    with pytest.raises(StoreError, match="newer version"):
        read_journal(path)


def test_the_space_of_the_tests_holds_every_kind_of_range() -> None:
    assert {d.type for d in SPACE.values()} == {"float", "int", "choice"}
