"""Training on mixed batches: it learns, resumes to the same weights, and its scores stay those of plain pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autodl_ray.train.inputs import StepInputs
from autodl_ray.train.loop import fit
from tests.train.sources import ArrayBatch, ArraySource, coloured, config_for, digits
from tests.train.test_loop import never, run, stop_after

MIXED = [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}]


@pytest.mark.parametrize("mixing", MIXED)
def test_digits_are_learned_from_mixed_batches(mixing: dict[str, float], tmp_path: Path) -> None:
    source = digits()
    result = run(config_for(source, epochs=5, **mixing), source, tmp_path)
    assert result.metrics["accuracy"] >= 0.9
    assert result.metrics["train_loss"] > result.metrics["loss"]  # soft labels cannot be met exactly


@pytest.mark.parametrize("mixing", MIXED)
def test_a_resumed_training_equals_an_unbroken_one(mixing: dict[str, float], tmp_path: Path) -> None:
    source = coloured()
    config = config_for(source, epochs=3, batch_size=16, **mixing)
    whole = run(config, source, tmp_path / "whole")
    run(config, source, tmp_path / "broken", should_stop=stop_after(7))
    resumed = run(config, source, tmp_path / "broken")
    assert resumed.metrics["loss"] == whole.metrics["loss"]
    weights = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]


def test_mixing_changes_the_training_and_off_does_not(tmp_path: Path) -> None:
    source = coloured()
    losses = {
        name: run(config_for(source, epochs=1, **mixing), source, tmp_path / name).metrics["loss"]
        for name, mixing in {"plain": {}, "off": {"mixup": 0.0}, "mixed": {"mixup": 1.0}}.items()
    }
    assert losses["plain"] == losses["off"] != losses["mixed"]


def test_the_inputs_of_a_step() -> None:
    source = coloured()
    batch = ArrayBatch(source.images[:10], source.labels[:10])
    device = torch.device("cpu")
    images, targets = StepInputs(config_for(source), device).make(batch, epoch=0, step=0)
    assert (images.shape, targets.shape, targets.dtype) == ((10, 3, 8, 8), (10,), torch.int64)
    mixed = StepInputs(config_for(source, cutmix=1.0, seed=1), device)
    images, targets = mixed.make(batch, epoch=0, step=0)
    assert (images.shape, targets.shape, targets.dtype) == ((10, 3, 8, 8), (10, 3), torch.float32)
    assert targets.sum(1).numpy() == pytest.approx(np.ones(10))
    others = [mixed.make(batch, epoch=e, step=s)[1] for e, s in ((1, 0), (0, 1))]
    assert not any(torch.equal(targets, other) for other in others)
    shown, soft = mixed.mixed(batch, epoch=0, step=0)
    assert shown.dtype == np.uint8
    assert np.array_equal(soft, targets.numpy())
    assert not np.array_equal(shown, batch.images)


def test_a_batch_that_is_mixed_with_itself_gives_the_plain_gradient(tmp_path: Path) -> None:
    """With one picture in the batch its partner is itself: soft and hard targets must train alike."""
    made = coloured(train=6)
    source = ArraySource(made.images, made.labels, made.val_images, made.val_labels)
    results = [
        fit(
            config_for(source, epochs=1, batch_size=1, **mixing),
            source,
            folder=tmp_path / name,
            report=lambda row: None,
            should_stop=never,
            num_threads=1,
        )
        for name, mixing in {"plain": {}, "mixed": {"mixup": 0.2, "cutmix": 1.0}}.items()
    ]
    assert results[0].metrics["loss"] == pytest.approx(results[1].metrics["loss"], rel=1e-4)
