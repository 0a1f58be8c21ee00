"""The loop: learning, resuming, stopping, deadlines, and what it writes."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autodl_ray.errors import StageError, StoreError
from autodl_ray.models.classifier import build, load_weights
from autodl_ray.models.preprocess import normalize
from autodl_ray.train.checkpoint import load_checkpoint
from autodl_ray.train.config import FitConfig
from autodl_ray.train.head import fit_head, save_head
from autodl_ray.train.loop import fit
from autodl_ray.train.plan import Pace
from autodl_ray.train.result import FitResult
from autodl_ray.train.step import Stepper
from tests.train.sources import ArraySource, coloured, config_for, digits


def never() -> bool:
    return False


def run(
    config: FitConfig,
    source: ArraySource,
    folder: Path,
    *,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    should_stop: Callable[[], bool] = never,
    deadline: float | None = None,
    head_init: Path | None = None,
    may_wait: Callable[[int], bool] | None = None,
) -> FitResult:
    return fit(
        config,
        source,
        folder=folder,
        report=report,
        should_stop=should_stop,
        deadline=deadline,
        head_init=head_init,
        num_threads=1,
        may_wait=may_wait,
    )


def stop_after(steps: int) -> Callable[[], bool]:
    left = [steps]

    def should_stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    return should_stop


def test_digits_reach_097(tmp_path: Path) -> None:
    source = digits()
    result = run(config_for(source, epochs=10), source, tmp_path)
    assert result.status == "finished"
    assert result.epochs == 10
    assert result.metrics["accuracy"] >= 0.97


def test_best_weights_have_the_score_that_is_claimed(tmp_path: Path) -> None:
    source = coloured()
    config = config_for(source, ema_decay=0.9)
    result = run(config, source, tmp_path)
    model = build("small_cnn", num_classes=3, image_size=8, weights="none").eval()
    load_weights(model, tmp_path / "best.safetensors")
    with torch.inference_mode():
        logits = model(normalize(torch.from_numpy(source.val_images), config.preprocess))
    accuracy = float((logits.argmax(1).numpy() == source.val_labels).mean())
    assert accuracy == pytest.approx(result.metrics["accuracy"])


def test_reports_once_an_epoch_after_the_checkpoint(tmp_path: Path) -> None:
    source = coloured()
    rows: list[dict[str, Any]] = []

    def report(row: dict[str, Any]) -> None:
        assert (tmp_path / "last.pt").exists()
        rows.append(row)

    run(config_for(source), source, tmp_path, report=report)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[0]["epochs_planned"] == 3
    wanted = {"loss", "accuracy", "macro_f1", "train_loss", "lr", "images_per_s", "data_wait", "epoch_s"}
    assert wanted <= set(rows[0])
    assert json.loads((tmp_path / "curves.json").read_text()) == rows
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert progress["step"] == progress["steps"] == 9
    assert progress["best"] == max(row["accuracy"] for row in rows)


def test_what_nobody_waits_for_is_written_with_a_later_epoch(tmp_path: Path) -> None:
    source, seen = coloured(), list[tuple[int, bool, bool]]()
    at_once, later = tmp_path / "at once", tmp_path / "later"

    def report(row: dict[str, Any]) -> None:
        written = [(later / name).exists() for name in ("last.pt", "best.safetensors")]
        seen.append((row["epoch"], *written))

    config = config_for(source, epochs=4)
    whole = run(config, source, at_once)
    lazy = run(config, source, later, report=report, may_wait=lambda epoch: epoch != 3)
    assert seen == [(1, False, False), (2, False, False), (3, True, True), (4, True, True)]
    assert [row["accuracy"] for row in lazy.history] == [row["accuracy"] for row in whole.history]
    assert lazy.best_epoch == whole.best_epoch
    assert (later / "best.safetensors").read_bytes() == (at_once / "best.safetensors").read_bytes()
    assert [row["epoch"] for row in json.loads((later / "curves.json").read_text())] == [1, 2, 3, 4]


def test_the_best_weights_are_written_when_an_error_ends_a_training_that_waited(tmp_path: Path) -> None:
    def report(row: dict[str, Any]) -> None:
        assert not (tmp_path / "best.safetensors").exists()
        if row["epoch"] == 2:
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        run(config_for(coloured()), coloured(), tmp_path, report=report, may_wait=lambda epoch: True)
    assert (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize("steps", [3, 4, 5])
def test_resumed_equals_unbroken(tmp_path: Path, steps: int) -> None:
    source = coloured()
    config = config_for(source, dropout=0.3, ema_decay=0.5)
    whole = run(config, source, tmp_path / "whole")
    broken = run(config, source, tmp_path / "broken", should_stop=stop_after(steps))
    assert broken.status == "stopped"
    resumed = run(config, source, tmp_path / "broken")
    assert resumed.status == "finished"
    assert resumed.history[-1]["loss"] == whole.history[-1]["loss"]
    first, second = (load_checkpoint(tmp_path / name)[0] for name in ("whole", "broken"))
    assert first is not None
    assert second is not None
    assert all(torch.equal(first["model"][k], second["model"][k]) for k in first["model"])


def test_finished_training_is_only_read(tmp_path: Path) -> None:
    source = coloured()
    first = run(config_for(source), source, tmp_path)
    rows: list[dict[str, Any]] = []
    again = run(config_for(source), source, tmp_path, report=rows.append)
    assert rows == []
    assert again.history == first.history
    assert again.best_epoch == first.best_epoch


def test_damaged_checkpoint_falls_back(tmp_path: Path) -> None:
    source = coloured()
    config = config_for(source)
    whole = run(config, source, tmp_path / "whole")
    run(config, source, tmp_path / "cut", should_stop=stop_after(7))
    last = tmp_path / "cut" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    resumed = run(config, source, tmp_path / "cut")
    assert "last.pt is damaged" in resumed.notes[0]
    assert resumed.history[-1]["loss"] == whole.history[-1]["loss"]


def test_other_configuration_is_refused(tmp_path: Path) -> None:
    source = coloured()
    run(config_for(source), source, tmp_path)
    with pytest.raises(StoreError, match=r"another configuration.*\n.*lr: 0.01 → 0.02"):
        run(config_for(source, lr=0.02), source, tmp_path)


def test_stop_before_the_first_epoch_still_gives_a_model(tmp_path: Path) -> None:
    source = coloured()
    result = run(config_for(source), source, tmp_path, should_stop=stop_after(2))
    assert result.status == "stopped"
    assert result.epochs == 1
    assert (tmp_path / "best.safetensors").exists()


def test_deadline_shortens_the_schedule(tmp_path: Path) -> None:
    source = digits()
    started = time.time()
    result = run(config_for(source, epochs=10_000), source, tmp_path, deadline=started + 4)
    assert time.time() <= started + 4 + 2, "the machine of the tests may be busy; otherwise it is on time"
    assert result.status == "finished"
    assert 1 <= result.epochs < 10_000
    assert result.history[-1]["lr"] < 0.05 * 1e-2, "the learning rate was annealed to the end"
    assert result.history[-1]["accuracy"] > 0.9


def test_slow_first_steps_do_not_end_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that is busy when it begins: by its first steps, not even the validation would end in time."""
    source, step = digits(), Stepper.step
    slept: list[float] = []

    def held_up(self: Stepper, *args: Any, **kwargs: Any) -> Any:
        if len(slept) < 3:
            slept.append(0.5)
            time.sleep(slept[-1])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Stepper, "step", held_up)
    config = config_for(source, epochs=2, batch_size=8)
    pace = Pace(eval_guess_steps=0.25 * source.num_val / 8, steps=deque([0.5, 0.5]))
    assert pace.eval_s() > 6  # more than is left by then
    result = run(config, source, tmp_path, deadline=time.time() + 7)
    assert len(slept) == 3
    assert (result.status, result.epochs) == ("finished", 2)


def test_deadline_in_the_past_returns_at_once(tmp_path: Path) -> None:
    source = coloured()
    result = run(config_for(source), source, tmp_path, deadline=time.time() - 1)
    assert result.epochs <= 1


def test_head_init_is_where_it_starts(tmp_path: Path) -> None:
    source = coloured()
    config = config_for(source, model="pixels", epochs=1, lr=1e-9, dropout=0.0)

    def flat(images: np.ndarray) -> np.ndarray:
        return normalize(torch.from_numpy(images), config.preprocess).flatten(1).numpy()

    head = fit_head(
        flat(source.images), source.labels, flat(source.val_images), source.val_labels, num_classes=3, seed=0
    )
    save_head(head, tmp_path / "head.safetensors")
    result = run(config, source, tmp_path / "fit", head_init=tmp_path / "head.safetensors")
    assert result.metrics["loss"] == pytest.approx(head.scores["loss"], abs=1e-4)


def test_diverging_training_is_a_clear_error(tmp_path: Path) -> None:
    source = coloured()
    config = config_for(source, optimizer="sgd", lr=1e30, grad_clip=0.0, schedule="constant")
    with pytest.raises(StageError, match=r"diverged.*\n.*\n.*lower train.lr"):
        run(config, source, tmp_path)


def test_loss_as_the_metric_picks_the_lowest(tmp_path: Path) -> None:
    source = coloured()
    result = run(replace(config_for(source), metric="loss"), source, tmp_path)
    assert result.metrics["loss"] == min(row["loss"] for row in result.history)


def test_threads_and_random_state_are_left_alone(tmp_path: Path) -> None:
    source = coloured()
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    run(config_for(source, epochs=1), source, tmp_path)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_bf16_runs(tmp_path: Path) -> None:
    source = coloured()
    result = run(config_for(source, precision="bf16"), source, tmp_path)
    assert result.precision == "bf16"
    assert result.metrics["accuracy"] > 0.8
