"""A training that is stopped inside an epoch goes on as if it had not been: the same samples, losses and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autodl_ray.artifacts import TrainSamples, ValSamples
from autodl_ray.data.samples import write_digits
from autodl_ray.data.stream import StreamSource
from autodl_ray.errors import StoreError
from autodl_ray.images import Preprocess
from autodl_ray.train.checkpoint import load_checkpoint
from autodl_ray.train.config import FitConfig
from autodl_ray.train.loop import fit
from autodl_ray.train.plan import lr_factor
from autodl_ray.train.result import FitResult
from autodl_ray.train.telemetry import LogConfig
from tests.train.sources import coloured, config_for


@dataclass
class Noting:
    """A stream that notes which samples were handed over."""

    stream: StreamSource
    seen: list[int] = field(default_factory=list)

    @property
    def num_train(self) -> int:
        return self.stream.num_train

    @property
    def num_val(self) -> int:
        return self.stream.num_val

    def train_epochs(self, **wanted: Any) -> Iterator[Iterator[Any]]:
        for epoch in self.stream.train_epochs(**wanted):
            yield self._noted(epoch)

    def _noted(self, epoch: Iterator[Any]) -> Iterator[Any]:
        for batch in epoch:
            self.seen += batch.ids.tolist()
            yield batch

    def val_batches(self, **wanted: Any) -> Iterator[Any]:
        return self.stream.val_batches(**wanted)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> StreamSource:
    root = Path(write_digits(tmp_path_factory.mktemp("digits"), n=230))
    paths = sorted(str(p.relative_to(root)) for p in root.rglob("*.png"))
    classes = tuple(sorted({p.split("/")[-2] for p in paths}))
    labels = np.array([classes.index(p.split("/")[-2]) for p in paths], dtype=np.int64)
    order = np.random.default_rng(0).permutation(len(paths))
    parts = order[:200], order[200:]
    train, val = (
        kind(root, part, tuple(paths[i] for i in part), labels[part], classes)
        for kind, part in ((TrainSamples, parts[0]), (ValSamples, parts[1]))
    )
    return StreamSource.make(train, val, Preprocess(8), seed=3)


def config(**changes: Any) -> FitConfig:
    values: dict[str, Any] = {
        "model": "small_cnn", "num_classes": 10, "preprocess": Preprocess(8), "weights": "none", "epochs": 4,
        "batch_size": 8, "lr": 5e-3, "augment": "light", "precision": "32", "dropout": 0.3, "ema_decay": 0.9,
        "mixup": 0.2, "micro_batch_size": 5,
    }  # fmt: skip
    return FitConfig(**{**values, **changes})


def train(
    wanted: FitConfig, source: Any, folder: Path, *, should_stop: Callable[[], bool] = lambda: False
) -> FitResult:
    log = LogConfig(every_steps=1)
    return fit(wanted, source, folder=folder, report=lambda row: None, should_stop=should_stop, num_threads=1, log=log)


def after(steps: int) -> Callable[[], bool]:
    left = [steps]

    def should_stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    return should_stop


def state_of(folder: Path) -> dict[str, Any]:
    state = load_checkpoint(folder)[0]
    assert state is not None
    return state


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def test_stopped_at_step_60_of_100(stream: StreamSource, tmp_path: Path) -> None:
    # Epochs of 25 steps. The question whether to stop is also asked at the end of each epoch: two more answers.
    whole, broken = Noting(stream), Noting(stream)
    unbroken = train(config(), whole, tmp_path / "whole")
    assert train(config(), broken, tmp_path / "broken", should_stop=after(62)).status == "stopped"
    taken = state_of(tmp_path / "broken")["counts"]
    assert (taken["step"], taken["epoch"], taken["in_epoch"]) == (60, 2, 10)
    broken.seen = broken.seen[: 60 * 8]  # the stop was seen after one more batch was there
    resumed = train(config(), broken, tmp_path / "broken")
    assert broken.seen == whole.seen
    assert sorted(broken.seen[400:600]) == sorted(stream.train.ids.tolist())
    for key in ("train_loss", "loss", "accuracy", "lr"):
        assert [row[key] for row in resumed.history] == [row[key] for row in unbroken.history], key
    first, second = state_of(tmp_path / "whole"), state_of(tmp_path / "broken")
    for key in ("model", "ema", "optimizer", "scaler"):
        assert same(first[key], second[key]), key


def test_killed_after_a_checkpoint_inside_the_epoch(stream: StreamSource, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill() -> bool:
        kill.left -= 1  # type: ignore[attr-defined]
        if kill.left < 0:  # type: ignore[attr-defined]
            raise Killed
        return False

    kill.left = 17  # type: ignore[attr-defined]
    wanted = config(epochs=1)
    unbroken = train(wanted, Noting(stream), tmp_path / "whole")
    with pytest.raises(Killed):
        train(config(epochs=1, checkpoint_every_s=1e-9), Noting(stream), tmp_path / "broken", should_stop=kill)
    assert state_of(tmp_path / "broken")["counts"]["in_epoch"] == 16, "one before every step but the first"
    source = Noting(stream)
    resumed = train(wanted, source, tmp_path / "broken")  # how often it saves is no other configuration
    assert len(source.seen) == 200 - 16 * 8
    assert resumed.history[0]["train_loss"] == unbroken.history[0]["train_loss"]
    assert same(state_of(tmp_path / "whole")["model"], state_of(tmp_path / "broken")["model"])


def test_no_checkpoint_inside_an_epoch_where_none_is_wanted(stream: StreamSource, tmp_path: Path) -> None:
    saved: list[int] = []

    def look() -> bool:
        saved.append(int((tmp_path / "last.pt").exists()))
        return False

    train(config(epochs=1, checkpoint_every_s=0.0), Noting(stream), tmp_path, should_stop=look)
    assert sum(saved) == 0


def test_more_epochs_extend_a_finished_training(tmp_path: Path) -> None:
    source = coloured()
    first = train(config_for(source, epochs=2), source, tmp_path)
    before = state_of(tmp_path)["counts"]["step"]
    longer = train(config_for(source, epochs=4), source, tmp_path)
    assert (first.epochs, longer.epochs, longer.status) == (2, 4, "finished")
    assert longer.history[:2] == first.history
    assert f"epochs raised from 2 to 4 after step {before}" in longer.notes
    # The first step of the extension is in the middle of the schedule of four epochs, the last one at its end.
    steps = [line["lr/backbone"] for line in _steps(tmp_path)]
    assert steps[before] == pytest.approx(1e-2 * lr_factor("one_cycle", 0.5))
    assert steps[-1] < steps[before] / 10
    assert train(config_for(source, epochs=4), source, tmp_path).epochs == 4
    with pytest.raises(StoreError, match="epochs: 4 → 3"):
        train(config_for(source, epochs=3), source, tmp_path)


def _steps(folder: Path) -> list[dict[str, Any]]:
    import json

    return [json.loads(line) for line in (folder / "metrics" / "steps.jsonl").read_text().splitlines()]


def test_steps_tell_what_they_did(tmp_path: Path) -> None:
    source = coloured()
    result = train(config_for(source, epochs=1, layer_decay=0.5), source, tmp_path)
    rows = _steps(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3]
    known = {"loss", "grad_norm", "weight_norm", "update_ratio", "lr/stage 0", "lr/head", "images_per_s", "data_wait"}
    assert known <= set(rows[-1])
    assert rows[-1]["lr/stage 2"] == pytest.approx(4 * rows[-1]["lr/stage 0"])
    assert {"top5", "recall", "grad_norm", "precision", "batch_size"} <= set(result.history[0])


def test_replicates_are_other_draws_of_the_same_settings(stream: StreamSource, tmp_path: Path) -> None:
    sources = [Noting(stream), Noting(stream), Noting(stream)]
    for number, source in enumerate(sources):
        train(config(epochs=1, replicate=number % 2), source, tmp_path / str(number))
    assert sources[0].seen == sources[2].seen
    assert sources[0].seen != sources[1].seen
    assert sorted(sources[0].seen) == sorted(sources[1].seen)
