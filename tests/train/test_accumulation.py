"""Gradients of micro-batches are those of the whole batch; where memory runs out, the same step is done in parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autodl_ray.errors import StageError
from autodl_ray.models.classifier import Classifier, build
from autodl_ray.train.batch_size import choose_size, measure_batch_size, scaled_lr
from autodl_ray.train.checkpoint import load_checkpoint
from autodl_ray.train.loop import fit
from autodl_ray.train.micro import MicroBatches, is_out_of_memory
from autodl_ray.train.peers import Alone, StepVote
from autodl_ray.train.result import FitResult
from autodl_ray.train.slices import sliced
from autodl_ray.train.step import Place, Stepper
from tests.train.sources import ArrayBatch, ArraySource, coloured, config_for

OWN = "tests.train.own_parts"


def run(folder: Path, *, source: ArraySource | None = None, **changes: Any) -> FitResult:
    source = source or coloured(train=66)
    config = config_for(source, **{"model": f"{OWN}:convolutions", "epochs": 2, "dropout": 0.0, **changes})
    return fit(config, source, folder=folder, report=lambda row: None, should_stop=lambda: False, num_threads=1)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(folder)[0]
    assert state is not None
    found: dict[str, torch.Tensor] = state["model"]
    return found


@pytest.mark.parametrize("micro", [16, 11, 7, 1])
def test_the_same_parameters_as_with_the_large_batch(tmp_path: Path, micro: int) -> None:
    # 66 samples in batches of 32: 2, 3, 5 or 32 micro-batches, the last of them smaller, and a last batch of 2.
    kinds = {"optimizer": "sgd", "class_weights": (0.5, 1.0, 1.5), "grad_clip": 0.5}
    run(tmp_path / "whole", **kinds)
    run(tmp_path / "parts", micro_batch_size=micro, **kinds)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert max(float((whole[k] - parts[k]).abs().max()) for k in whole) < 1e-6


def test_float64_gradients_agree_to_the_last_digits(tmp_path: Path) -> None:
    source = coloured()
    config = config_for(source, model=f"{OWN}:convolutions", dropout=0.0, grad_clip=0.0)
    batch = ArrayBatch(source.images[:30], source.labels[:30])
    made = []
    for micro in (None, 13):
        model = build(config.model, num_classes=3, image_size=8, weights="none").double().train()
        stepper = Stepper(config, model, Alone(), folder=tmp_path)
        stepper.micro.size = micro
        pictures, targets = stepper.inputs.mixed(batch, epoch=0, step=0)
        stepper.inputs = _Doubled(stepper.inputs)  # type: ignore[assignment]
        stepper._accumulate(pictures, targets, StepVote(30, 1, False))
        made.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for whole, parts in zip(*made, strict=True):
        assert (whole - parts).abs().max() < 1e-7  # logits go through float32


class _Doubled:
    def __init__(self, inputs: Any) -> None:
        self.inputs = inputs

    def tensors(self, pictures: Any, targets: Any) -> tuple[torch.Tensor, torch.Tensor]:
        images, wanted = self.inputs.tensors(pictures, targets)
        return images.double(), wanted


def test_slices_accumulate_too(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    source = coloured(train=24, val=4, size=72)
    config = config_for(source, model=f"{OWN}:convolutions", dropout=0.0, grad_clip=0.0)
    made = []
    for micro in (None, 9):
        model = build(config.model, num_classes=3, image_size=72, weights="none").train()
        model.backbone.double()
        stepper = Stepper(config, model, Alone(), folder=tmp_path)
        stepper.inputs = _Doubled(stepper.inputs)  # type: ignore[assignment]
        stepper.micro.size = micro
        with sliced(model.backbone, image_size=72, device=torch.device("cpu")) as slices:
            assert slices is not None
            stepper.slices = slices
            stepper._accumulate(source.images, source.labels, StepVote(24, 1, False))
        made.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.set_num_threads(1)
    for whole, parts in zip(*made, strict=True):
        assert (whole - parts).abs().max() < 1e-6


@pytest.mark.parametrize("error", ["torch", "python", "allocator"])
def test_out_of_memory_repeats_the_step_in_parts(tmp_path: Path, error: str) -> None:
    result = run(tmp_path / "short", model=f"{OWN}:greedy_{error}", dropout=0.3)
    wanted = run(tmp_path / "asked", model=f"{OWN}:greedy_{error}", dropout=0.3, micro_batch_size=8)
    assert result.notes == (
        "memory ran out with 32 pictures at a time; gradients are accumulated over micro-batches of 16, "
        "batch and learning rate stay",
        "memory ran out with 16 pictures at a time; gradients are accumulated over micro-batches of 8, "
        "batch and learning rate stay",
    )
    assert [row["micro_batch"] for row in result.history] == [8, 8]
    assert [row["loss"] for row in result.history] == [row["loss"] for row in wanted.history]
    short, asked = weights(tmp_path / "short"), weights(tmp_path / "asked")
    assert all(torch.equal(short[k], asked[k]) for k in short), "statistics of norms and dropout included"
    assert json.loads((tmp_path / "short" / "micro_batch.json").read_text()) == {"size": 8}
    assert MicroBatches.of(tmp_path / "short", 12).size == 8


def test_one_picture_that_does_not_fit_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"One picture alone.*\n.*refuses 1 at 8 px\n.*model.image_size"):
        run(tmp_path, model=f"{OWN}:insatiable")


def test_other_errors_are_not_taken_for_it(tmp_path: Path) -> None:
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="broken on purpose"):
        run(tmp_path, model=f"{OWN}:broken_in_training")


def test_batch_size_is_measured_and_kept(tmp_path: Path) -> None:
    source = coloured(train=700)
    result = run(tmp_path, source=source, model="small_cnn", epochs=1, batch_auto=True)
    size = result.history[0]["batch_size"]
    assert size in (16, 32)  # 700 samples: no more than 35, so that an epoch has 20 steps
    assert result.notes[0].startswith(f"batch_size {size}, lr {scaled_lr(1e-2, size, 'adamw'):.3g} (images/s by")
    again = run(tmp_path, source=source, model="small_cnn", epochs=2, batch_auto=True)
    assert [row["batch_size"] for row in again.history] == [size, size]


def test_the_measuring_leaves_the_network_alone_and_stops_at_the_memory() -> None:
    source = coloured(train=20_000)
    config = config_for(source, model=f"{OWN}:greedy_python", batch_auto=True)
    model: Classifier = build(config.model, num_classes=3, image_size=8, weights="none").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for module in model.modules():
        if hasattr(module, "most"):
            module.most = 20  # type: ignore[assignment]
    choice = measure_batch_size(config, model, Alone(), num_train=20_000)
    assert (choice.size, set(choice.seconds), choice.ended) == (16, {16}, "32 does not fit into memory")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert choice.apply(config).lr == pytest.approx(1e-2 * 0.5**0.5)


def test_the_rules_of_the_measured_batch() -> None:
    assert choose_size({16: 1.0, 32: 1.05, 64: 2.0}) == 32
    assert choose_size({16: 1.0, 32: 1.99}) == 16
    assert scaled_lr(1.0, 128, "sgd") == 4.0
    assert scaled_lr(1.0, 128, "adamw") == 2.0


def test_a_step_with_nothing_left_over(tmp_path: Path) -> None:
    source = coloured()
    config = config_for(source)
    model = build("small_cnn", num_classes=3, image_size=8, weights="none").train()
    stepper = Stepper(config, model, Alone(), folder=tmp_path)
    batch = ArrayBatch(source.images[:32], source.labels[:32])
    outcome = stepper.step(batch, StepVote(32, 1, False), Place(0, 0, 0.0), factor=1.0, watch=True)
    assert outcome.grad_norm is not None
    assert outcome.weight_norm is not None
    assert outcome.update_ratio is not None
    assert outcome.accuracy is not None
    assert outcome.update_ratio > 0
    assert all(p.grad is None for p in model.parameters())
    assert isinstance(model, nn.Module)
