"""Precision by timing, half precision with a scale that reacts to overflow, and torch.compile that may fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autodl_ray.errors import ResourceError, StageError
from autodl_ray.models.classifier import build
from autodl_ray.train.loop import fit
from autodl_ray.train.peers import Alone, StepVote
from autodl_ray.train.precision import (
    PrecisionChoice,
    PrecisionMemory,
    check_precision,
    choose_precision,
    precisions_of,
)
from autodl_ray.train.result import FitResult
from autodl_ray.train.scaling import GradientScaler, make_scaler
from autodl_ray.train.state import TrainState
from autodl_ray.train.step import Place, Stepper
from tests.train.sources import ArrayBatch, coloured, config_for

CPU = torch.device("cpu")


def run(folder: Path, **changes: Any) -> FitResult:
    source = coloured()
    config = config_for(source, **{"epochs": 1, **changes})
    return fit(config, source, folder=folder, report=lambda row: None, should_stop=lambda: False, num_threads=1)


def test_half_precision_on_a_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"precision 16 is not possible.*\n.*device: cpu\n.*auto, 32, bf16\n.*auto"):
        run(tmp_path, precision="16")
    assert not list(tmp_path.iterdir())
    check_precision("bf16", CPU)
    assert precisions_of(CPU) == ("32", "bf16")


def test_auto_writes_down_what_it_timed(tmp_path: Path) -> None:
    result = run(tmp_path, precision="auto")
    assert result.precision in ("32", "bf16")
    assert result.notes[0].startswith(f"precision {result.precision}: a step of 32 pictures took 32 ")
    assert result.history[0]["precision"] == result.precision


def test_the_fastest_wins_and_small_steps_are_not_compared() -> None:
    model = build("small_cnn", num_classes=3, image_size=64, weights="none").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    images, labels = torch.randn(64, 3, 64, 64), torch.arange(64) % 3
    choice = choose_precision(model, images, labels)
    assert set(choice.seconds) == {"32", "bf16"}
    assert choice.precision == min(choice.seconds, key=lambda name: choice.seconds[name])
    assert choice.samples == 49  # the pixels of four pictures of 224 px
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    small = choose_precision(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), images[..., :8, :8], labels)
    assert (small.precision, set(small.seconds)) == ("32", {"32"})
    assert PrecisionChoice("32", {"32": 0.5, "bf16": 1.0}, 4).note == (
        "precision 32: a step of 4 pictures took 32 500 ms, bf16 1e+03 ms"
    )


def test_a_process_times_the_same_network_once() -> None:
    memory, labels = PrecisionMemory(), torch.arange(8) % 3
    model = build("small_cnn", num_classes=3, image_size=8, weights="none").train()
    images = torch.randn(8, 3, 8, 8)
    first = memory.choose("small_cnn", model, images, labels)
    assert memory.choose("small_cnn", model, images, labels) is first
    assert memory.choose("small_cnn", model, images[:4], labels[:4]) is not first
    assert memory.choose("other", model, images, labels) is not first
    model.backbone.requires_grad_(False)
    assert memory.choose("small_cnn", model, images, labels) is not first


class Overflowing(nn.Module):
    """Passes on; gradients of chosen backward passes are not finite."""

    def __init__(self, *bad: int) -> None:
        super().__init__()
        self.bad, self.passes = bad, 0

    def forward(self, x: Tensor) -> Tensor:
        made = x * 1.0
        if made.requires_grad:
            made.register_hook(self._spoil)
        return made

    def _spoil(self, gradient: Tensor) -> Tensor:
        self.passes += 1
        return gradient * float("inf") if self.passes - 1 in self.bad else gradient


def stepper_with(tmp_path: Path, *bad: int) -> Stepper:
    config = config_for(coloured(), ema_decay=0.5)
    model = build("small_cnn", num_classes=3, image_size=8, weights="none").train()
    model.dropout = Overflowing(*bad)  # type: ignore[assignment]
    stepper = Stepper(config, model, Alone(), folder=tmp_path)
    stepper.scaler = GradientScaler(CPU)  # what `16` gives on a GPU; the numbers themselves stay float32 here
    return stepper


def step(stepper: Stepper, number: int) -> Any:
    source = coloured()
    batch = ArrayBatch(source.images[:32], source.labels[:32])
    return stepper.step(batch, StepVote(32, 9, False), Place(0, number, 0.3), factor=1.0, watch=True)


def test_an_overflow_skips_the_step_and_lowers_the_scale(tmp_path: Path) -> None:
    stepper = stepper_with(tmp_path, 1)
    assert stepper.average is not None
    assert not step(stepper, 0).skipped
    before = [p.detach().clone() for p in stepper.model.parameters()]
    scale = stepper.scaler.scale_now
    outcome = step(stepper, 1)
    assert outcome.skipped
    assert outcome.update_ratio == 0
    assert stepper.scaler.scale_now == scale / 2 if scale else False
    assert all(torch.equal(a, b) for a, b in zip(before, stepper.model.parameters(), strict=True))
    assert stepper.average.updates == 1
    assert not step(stepper, 2).skipped
    kept = stepper.scaler.state_dict()
    other = make_scaler("16", CPU)
    other.load_state_dict(kept)
    assert other.scale_now == stepper.scaler.scale_now


def test_scaled_gradients_are_those_without_a_scale(tmp_path: Path) -> None:
    scaled, plain = stepper_with(tmp_path), stepper_with(tmp_path)
    plain.scaler = make_scaler("32", CPU)
    for stepper in (scaled, plain):
        stepper.micro.size = 20
        step(stepper, 0)
    for a, b in zip(scaled.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_overflow_without_end_is_a_clear_error(tmp_path: Path) -> None:
    stepper = stepper_with(tmp_path, *range(99))
    with pytest.raises(StageError, match=r"overflows at every step.*\n.*31 steps.*\n.*bf16 or 32"):
        [step(stepper, number) for number in range(40)]


def test_a_skipped_step_does_not_move_the_schedule(tmp_path: Path) -> None:
    from autodl_ray.train.loop import _Run
    from autodl_ray.train.step import StepOutcome

    source = coloured()
    run = _Run(config_for(source), source, folder=tmp_path, deadline=None, head_init=None, peers=Alone())
    assert isinstance(run.state, TrainState)
    positions = []
    for skipped in (False, True, False, *[False] * 6):
        loss = float("nan") if skipped else 1.0
        run._count(StepOutcome(loss, skipped), StepVote(32, 9, False), own=32)
        positions.append(run.state.counts.position)
    assert positions[1] == positions[0] == pytest.approx(1 / 9)
    assert positions[2] == pytest.approx(1 / 9 + (8 / 9) / 7)
    assert positions[-1] == pytest.approx(1.0)
    assert run.state.counts.step == 9


def test_compile_falls_back_with_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", (None, "no-such-compiler"))
    plain = run(tmp_path / "plain")
    result = run(tmp_path / "compiled", compile=True)
    assert [note for note in result.notes if note.startswith("torch.compile failed, so the network runs without it")]
    assert result.metrics["loss"] == plain.metrics["loss"]
