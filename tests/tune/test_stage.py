"""The sweep as a stage, with the real training: what it writes, and that it goes on wherever it was stopped."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autodl_ray import tune
from autodl_ray.data.samples import write_digits
from autodl_ray.data.stream import StreamSource
from autodl_ray.errors import ResourceError, SpecError, StageError
from autodl_ray.runtime.cluster import ClusterInfo
from autodl_ray.spec import Float, TrainSpec, TuneSpec
from autodl_ray.tune.journal import read_journal
from autodl_ray.tune.space import fingerprint
from tests.data.stream.streams import photo_splits
from tests.tune.driver import EPOCHS, PREPROCESS, sweep_context, sweep_inputs

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 digits as pictures."""
    return write_digits(tmp_path_factory.mktemp("digits") / "d", n=400)


def test_a_sweep_its_extension_and_its_look_up(tmp_path: Path, digits: Path, ray_cluster: ClusterInfo) -> None:
    context, spec = sweep_context(tmp_path), TuneSpec(search="tpe")
    sweep = tune.run(spec, sweep_inputs(digits, num_samples=5), key="sweep", context=context)
    assert [t.id for t in sweep.trials] == [f"t{n:04d}" for n in range(5)]
    assert dict(sweep.trials[0].params) == {"lr": 3e-3, "weight_decay": 0.01}
    assert len({fingerprint(t.params) for t in sweep.trials}) == 5
    assert sweep.best is not None
    assert sweep.best.metrics["accuracy"] == max(t.metrics["accuracy"] for t in sweep.trials) > 0.8
    assert sweep.best_weights is not None
    assert sweep.artifact is not None
    assert sweep.artifact.manifest.kind == "sweep"
    assert sorted(sweep.artifact.manifest.files) == ["best.safetensors", "leaderboard.json", "trials.json"]
    assert not (tmp_path / "run" / "work").exists()
    assert context.progress.lines == ["5 trials, 2 at a time × 1 worker × 0.9 CPU of 2"]  # type: ignore[attr-defined]

    began = time.monotonic()
    again = tune.run(spec, sweep_inputs(digits, num_samples=5), key="sweep", context=context)
    assert time.monotonic() - began < 5
    assert [t.params for t in again.trials] == [t.params for t in sweep.trials]
    assert again.best == sweep.best

    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(tmp_path / "run", moved / "run")
    more = tune.run(spec, sweep_inputs(digits, num_samples=7), key="sweep", context=sweep_context(moved))
    assert more.trials[:5] != ()
    for old, new in zip(sweep.trials, more.trials, strict=False):
        assert (old.id, old.params, old.curve) == (new.id, new.params, new.curve)
    assert len(more.trials) == 7
    assert more.best_weights is not None
    assert more.best_weights.is_relative_to(moved)
    rows = json.loads(more.artifact.file("leaderboard.json").read_text())  # type: ignore[union-attr]
    assert [r["rank"] for r in rows] == list(range(1, 8))
    assert str(tmp_path) not in (moved / "run" / "sweep.journal.jsonl").read_text()


def test_one_training_with_the_defaults(tmp_path: Path, digits: Path, ray_cluster: ClusterInfo) -> None:
    inputs = sweep_inputs(digits, num_samples=1, param_space={})
    run = tune.run(TuneSpec(), inputs, key="train", context=sweep_context(tmp_path))
    assert run.artifact is not None
    assert run.artifact.manifest.kind == "training"
    (trial,) = run.trials
    assert (trial.status, trial.epochs, dict(trial.params)) == ("finished", EPOCHS, {})
    assert [row["epoch"] for row in trial.curve] == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize("num_samples", [1, 2])
def test_trials_stream_photos_beside_what_they_reserve(
    tmp_path: Path, digits: Path, ray_cluster: ClusterInfo, num_samples: int
) -> None:
    train, val = photo_splits(tmp_path)
    source = StreamSource.make(train, val, PREPROCESS, seed=0, memory_limit_bytes=0)
    assert source.is_streamed
    space = {} if num_samples == 1 else {"lr": Float(low=1e-3, high=1e-2)}
    inputs = sweep_inputs(digits, num_samples=num_samples, source=source, num_classes=3, param_space=space)
    run = tune.run(TuneSpec(scheduler="none"), inputs, key="train", context=sweep_context(tmp_path))
    assert [(trial.status, trial.epochs) for trial in run.trials] == [("finished", EPOCHS)] * num_samples


def test_changed_inputs_begin_anew_and_say_so(tmp_path: Path, digits: Path, ray_cluster: ClusterInfo) -> None:
    context = sweep_context(tmp_path)
    first = sweep_inputs(digits, num_samples=1, param_space={}, epochs=1)
    tune.run(TuneSpec(), first, key="train", context=context)
    base = TrainSpec(lr=2e-3, dropout=0.0, label_smoothing=0.0, augment="none", precision="32")
    run = tune.run(
        TuneSpec(),
        sweep_inputs(digits, num_samples=1, param_space={}, epochs=2, base=base),
        key="train",
        context=context,
    )
    assert run.trials[0].epochs == 2
    lines = context.progress.lines  # type: ignore[attr-defined]
    assert lines == ["train: begun anew, its inputs changed (base.lr: 0.003 → 0.002; epochs: 1 → 2)"]
    assert (tmp_path / "run" / "train.journal.1.jsonl").exists()


def test_more_epochs_of_a_finished_training_go_on_from_its_checkpoint(
    tmp_path: Path, digits: Path, ray_cluster: ClusterInfo
) -> None:
    context = sweep_context(tmp_path)

    def trained(epochs: int) -> tune.SweepRun:
        inputs = sweep_inputs(digits, num_samples=1, param_space={}, epochs=epochs)
        return tune.run(TuneSpec(), inputs, key="train", context=context)

    first, more = trained(2), trained(5)
    assert (first.trials[0].epochs, first.trials[0].status) == (2, "finished")
    assert (more.trials[0].epochs, more.trials[0].status) == (5, "finished")
    assert [row["epoch"] for row in more.trials[0].curve] == [1, 2, 3, 4, 5]
    assert [r["loss"] for r in more.trials[0].curve[:2]] == [r["loss"] for r in first.trials[0].curve]
    assert more.best is not None
    assert more.best.weights is not None
    epochs = [e["metrics"]["epoch"] for e in read_journal(tmp_path / "run" / "train.journal.jsonl") if "metrics" in e]
    assert epochs == [1, 2, 3, 4, 5]  # none was made again
    assert trained(5).trials == more.trials


def test_when_every_trial_fails_the_error_is_the_last_word(
    tmp_path: Path, digits: Path, ray_cluster: ClusterInfo
) -> None:
    inputs = sweep_inputs(digits, num_samples=2, head_init=tmp_path / "no-such-head.safetensors")
    with pytest.raises(StageError, match="All 2 trials of sweep failed") as caught:
        tune.run(TuneSpec(), inputs, key="sweep", context=sweep_context(tmp_path))
    assert "no-such-head.safetensors" in str(caught.value).splitlines()[-1]
    assert ".py:" in str(caught.value)
    with pytest.raises(StageError):  # it is tried again, not looked up
        tune.run(TuneSpec(), inputs, key="sweep", context=sweep_context(tmp_path))
    assert (tmp_path / "run" / "sweep.journal.1.jsonl").exists()


def test_what_cannot_fit_or_is_not_accepted_is_refused_before_anything_starts(
    tmp_path: Path, digits: Path, ray_cluster: ClusterInfo
) -> None:
    greedy = TrainSpec(num_workers=4, cpus_per_worker=1.0)
    with pytest.raises(ResourceError, match="One trial does not fit"):
        tune.run(
            TuneSpec(), sweep_inputs(digits, num_samples=2, base=greedy), key="sweep", context=sweep_context(tmp_path)
        )
    inputs = sweep_inputs(digits, num_samples=3, param_space={"weight_decay": Float(low=5.0, high=9.0)})
    with pytest.raises(SpecError, match=r"not accepted by train\.weight_decay"):
        tune.run(TuneSpec(), inputs, key="sweep", context=sweep_context(tmp_path))


@pytest.mark.slow
def test_a_trial_of_two_workers(tmp_path: Path, digits: Path, ray_cluster: ClusterInfo) -> None:
    base = TrainSpec(lr=3e-3, dropout=0.0, label_smoothing=0.0, augment="none", precision="32", num_workers=2)
    inputs = sweep_inputs(digits, num_samples=2, base=base, epochs=2)
    run = tune.run(TuneSpec(scheduler="none"), inputs, key="sweep", context=sweep_context(tmp_path))
    assert [(t.status, t.epochs) for t in run.trials] == [("finished", 2)] * 2


@pytest.mark.slow
def test_a_killed_driver_repeats_no_finished_trial(tmp_path: Path, digits: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    command = [sys.executable, "-m", "tests.tune.driver", str(store), str(digits)]
    journal = store / "run" / "sweep.journal.jsonl"
    with subprocess.Popen([*command, "40"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        deadline = time.monotonic() + 90
        while _ended(journal) < 5 and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
    before = read_journal(journal)
    assert 5 <= _ended(journal) < 40
    moved = store.rename(tmp_path / "moved")
    done = subprocess.run(
        [*command[:-2], str(moved), str(digits), "40"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    after = read_journal(moved / "run" / "sweep.journal.jsonl")
    assert after[: len(before)] == before
    ended = {e["trial"] for e in before if e["event"] == "ended"}
    assert not ended & {e["trial"] for e in after[len(before) :] if "trial" in e}
    epochs = [(e["trial"], e["metrics"]["epoch"]) for e in after if e["event"] == "epoch"]
    assert len(set(epochs)) == len(epochs)  # begun trials went on, from the epoch after the last that was reported
    trials = json.loads(done.stdout)["trials"]
    assert len(trials) == 40
    assert {status for status, _, _ in trials.values()} == {"finished", "stopped"}


def _ended(journal: Path) -> int:
    if not journal.exists():
        return 0
    return sum(event["event"] == "ended" for event in read_journal(journal))
