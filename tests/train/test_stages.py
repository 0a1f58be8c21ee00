"""Stages of a backbone: found in every network of the zoo, unfrozen from the top, each with its own rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autodl_ray.models.classifier import build
from autodl_ray.train.checkpoint import load_checkpoint
from autodl_ray.train.loop import fit
from autodl_ray.train.optim import build_optimizer, lr_by_group
from autodl_ray.train.peers import Alone, StepVote
from autodl_ray.train.result import FitResult
from autodl_ray.train.slices import sliced
from autodl_ray.train.stages import MOST_STAGES, Thaw, backbone_stages
from autodl_ray.train.step import Place, Stepper
from tests.train.sources import ArrayBatch, coloured, config_for

STAGES = {"small_cnn": 3, "resnet18": 5, "efficientnet_lite0": 8, "mobilenet_v3_small": 8, "pixels": 0}


@pytest.mark.parametrize(("name", "count"), STAGES.items())
def test_every_parameter_is_in_one_stage(name: str, count: int) -> None:
    backbone = build(name, num_classes=2, image_size=64, weights="none").backbone
    stages = backbone_stages(backbone)
    assert len(stages) == count <= MOST_STAGES
    found = [id(p) for stage in stages for module in stage for p in module.parameters()]
    assert sorted(found) == sorted(id(p) for p in backbone.parameters())
    order = {id(p): i for i, p in enumerate(backbone.parameters())}
    assert [order[key] for key in found] == sorted(order.values()), "the stage of the input comes first"


def test_a_module_with_parameters_of_its_own_is_one_stage() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.layer = nn.Linear(2, 2)

    assert len(backbone_stages(Scaled())) == 1


def test_which_stages_learn_when() -> None:
    stages = tuple((nn.Linear(1, 1),) for _ in range(4))
    thaw = Thaw(stages, "gradual", 0.4)
    assert [thaw.wanted(p) for p in (0.0, 0.09, 0.1, 0.2, 0.3, 0.4, 1.0)] == [0, 0, 1, 2, 3, 4, 4]
    assert Thaw(stages, "backbone", 0.4).wanted(1.0) == 0
    assert Thaw(stages, "none", 0.4).wanted(0.0) == 4
    assert thaw.move_to(0.1)
    assert not thaw.move_to(0.11)
    assert [stage[0].weight.requires_grad for stage in stages] == [False, False, False, True]


def test_layer_decay_gives_each_stage_its_rate() -> None:
    source = coloured()
    config = config_for(source, layer_decay=0.5, head_lr_factor=10.0)
    model = build("small_cnn", num_classes=3, image_size=8, weights="none")
    rates = lr_by_group(build_optimizer(model, config))
    assert rates == {"stage 0": 2.5e-3, "stage 1": 5e-3, "stage 2": 1e-2, "head": 1e-1}
    groups = build_optimizer(model, config).param_groups
    assert {g["weight_decay"] for g in groups if g["params"][0].ndim > 1} == {config.weight_decay}


def train(folder: Path, *, stop_after: int | None = None, **changes: Any) -> FitResult:
    source = coloured(train=320)
    left = [10_000 if stop_after is None else stop_after]

    def should_stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    config = config_for(source, **{"epochs": 2, "ema_decay": 0.5, **changes})
    return fit(config, source, folder=folder, report=lambda row: None, should_stop=should_stop, num_threads=1)


def model_of(folder: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(folder)[0]
    assert state is not None
    found: dict[str, torch.Tensor] = state["model"]
    return found


def test_a_frozen_backbone_stays_and_the_head_learns(tmp_path: Path) -> None:
    train(tmp_path, freeze="backbone")
    fresh = build("small_cnn", num_classes=3, image_size=8, weights="none").state_dict()
    trained = model_of(tmp_path)
    for name, value in trained.items():  # running statistics too
        assert torch.equal(value, fresh[name]) == name.startswith("backbone"), name


def test_gradual_unfreezing_learns_everything_in_the_end(tmp_path: Path) -> None:
    result = train(tmp_path, freeze="gradual", unfreeze_share=0.5)
    fresh = build("small_cnn", num_classes=3, image_size=8, weights="none").state_dict()
    trained = model_of(tmp_path)
    assert not [name for name, value in trained.items() if torch.equal(value, fresh[name])]
    assert result.metrics["accuracy"] > 0.8


@pytest.mark.parametrize("steps", [4, 14])
def test_gradual_unfreezing_is_resumed_where_it_was(tmp_path: Path, steps: int) -> None:
    wanted = {"freeze": "gradual", "unfreeze_share": 0.9, "epochs": 2}
    train(tmp_path / "whole", **wanted)
    train(tmp_path / "broken", stop_after=steps, **wanted)
    train(tmp_path / "broken", **wanted)
    whole, broken = model_of(tmp_path / "whole"), model_of(tmp_path / "broken")
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


@pytest.mark.parametrize(("position", "learning"), [(0.0, 0), (0.35, 3)])
def test_frozen_stages_get_no_gradient_in_slices(tmp_path: Path, position: float, learning: int) -> None:
    source = coloured(train=6, val=3, size=72)
    config = config_for(
        source, model="efficientnet_lite0", freeze="gradual", unfreeze_share=0.8, freeze_norms=True, grad_clip=0.0
    )
    torch.set_num_threads(2)
    try:
        from autodl_ray.train.initial import initial_model

        model = initial_model(config, head_init=None, fresh=True, device=torch.device("cpu"))
        stepper = Stepper(config, model, Alone(), folder=tmp_path)
        with sliced(model.backbone, image_size=72, device=torch.device("cpu")) as slices:
            assert slices is not None
            stepper.slices = slices
            before = {k: v.clone() for k, v in model.named_parameters()}
            batch = ArrayBatch(source.images[:6], source.labels[:6])
            stepper.step(batch, StepVote(6, 1, False), Place(0, 0, position), factor=1.0, watch=False)
    finally:
        torch.set_num_threads(1)
    moved = [
        any(not torch.equal(p, before[k]) for k, p in model.named_parameters() if id(p) in _ids(stage))
        for stage in stepper.thaw.stages
    ]
    assert moved == [index >= 8 - learning for index in range(8)]
    assert not torch.equal(model.head.weight, before["head.weight"])


def _ids(stage: tuple[nn.Module, ...]) -> set[int]:
    return {id(p) for module in stage for p in module.parameters()}
