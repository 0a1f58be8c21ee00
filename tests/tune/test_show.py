"""The bar of a sweep counts trials, the bar of a single training follows its progress file."""

from __future__ import annotations

import json
from pathlib import Path

from autodl_ray.tune.journal import Journal
from autodl_ray.tune.show import show_progress
from autodl_ray.tune.workspace import Workspace
from tests.tune.simulated import EPOCHS, opened


class Bar:
    """Keeps what it was told last."""

    def update(self, done: float, total: float | None = None, *, note: str = "") -> None:
        """Keep it."""
        self.seen = (round(done, 3), total, note)


def test_a_sweep_shows_trials_and_the_best(tmp_path: Path) -> None:
    path, bar = tmp_path / "j.jsonl", Bar()
    workspace = Workspace(tmp_path / "work", path)
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=4)
        show_progress(bar, engine, workspace, single=False)
        assert bar.seen == (0, 4, "")
        first, second = engine.next_trial(), engine.next_trial()
        assert first is not None
        assert second is not None
        for epoch in range(1, EPOCHS + 1):
            engine.report(first.id, {"epoch": epoch, "accuracy": 0.1 * epoch})
        engine.ended(first.id)
        engine.report(second.id, {"epoch": 1, "accuracy": 0.2})
    show_progress(bar, engine, workspace, single=False)
    assert bar.seen == (round(1 + 1 / EPOCHS, 3), 4, "best val accuracy 0.9000 (t0000)")


def test_a_training_shows_epochs_and_speed_and_survives_a_torn_file(tmp_path: Path) -> None:
    path, bar = tmp_path / "j.jsonl", Bar()
    workspace = Workspace(tmp_path / "work", path)
    with Journal(path) as journal:
        engine = opened(journal, path, num_samples=1, scheduler="none")
        trial = engine.next_trial()
        assert trial is not None
        engine.report(trial.id, {"epoch": 1, "accuracy": 0.5})
    workspace.trial(trial.id).mkdir(parents=True)
    progress = workspace.trial(trial.id) / "progress.json"
    progress.write_text(json.dumps({"epoch": 2, "step": 30, "steps": 90, "images_per_s": 41.6, "best": 0.5}))
    show_progress(bar, engine, workspace, single=True)
    assert bar.seen == (3.0, EPOCHS, "best val accuracy 0.5000, 42 images/s")
    progress.write_text('{"epoch": 2, "st')
    show_progress(bar, engine, workspace, single=True)
    assert bar.seen == (1.0, EPOCHS, "best val accuracy 0.5000")
