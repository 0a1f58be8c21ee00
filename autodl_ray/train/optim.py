"""Optimizers over groups of parameters, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from autodl_ray.models.classifier import Classifier
from autodl_ray.train.config import FitConfig
from autodl_ray.train.fused import FusedAdamW, FusedOptimizer, FusedSGD
from autodl_ray.train.stages import backbone_stages

__all__ = ["MovingAverage", "build_optimizer", "lr_by_group", "param_groups", "set_lr"]


def param_groups(model: Classifier, config: FitConfig) -> list[dict[str, Any]]:
    """Divide the parameters into backbone and head, each with and without weight decay.

    Vectors (the scales and shifts of norms, biases) do not decay. Each group has its peak rate in ``peak_lr``, and
    its ``name``: ``backbone`` (with ``layer_decay`` below 1 its stages, ``stage 0`` being the input's) and ``head``.
    """
    groups: list[dict[str, Any]] = []
    for name, modules, lr in _parts(model, config):
        for decays in (True, False):
            params = [p for m in modules for p in m.parameters() if p.requires_grad and (p.ndim > 1) == decays]
            if params:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": params, "lr": lr, "peak_lr": lr, "weight_decay": decay, "name": name})
    return groups


def _parts(model: Classifier, config: FitConfig) -> Iterator[tuple[str, tuple[nn.Module, ...], float]]:
    """Yield name, modules and peak rate: discriminative rates (Howard and Ruder 2018) where they are wanted."""
    if config.layer_decay == 1.0:
        yield "backbone", (model.backbone,), config.lr
    else:
        stages = backbone_stages(model.backbone)
        for index, stage in enumerate(stages):
            yield f"stage {index}", stage, config.lr * config.layer_decay ** (len(stages) - 1 - index)
    yield "head", (model.head,), config.lr * config.head_lr_factor


def build_optimizer(model: Classifier, config: FitConfig) -> FusedOptimizer:
    """Make the optimizer over the groups of :func:`param_groups`."""
    groups = param_groups(model, config)
    return FusedAdamW(groups) if config.optimizer == "adamw" else FusedSGD(groups, momentum=config.momentum)


def set_lr(optimizer: FusedOptimizer, factor: float) -> None:
    """Set every group to ``factor`` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def lr_by_group(optimizer: FusedOptimizer) -> dict[str, float]:
    """Return the learning rate that each name has now."""
    return {group["name"]: float(group["lr"]) for group in optimizer.param_groups}


class MovingAverage:
    """An exponential moving average of the weights, with a warm-up so that the first steps are soon forgotten.

    Args:
        model: Where it starts.
        decay: In (0, 1); the memory is about 1 / (1 - decay) steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the weights of ``model``; whole numbers (counters) are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        own: list[Tensor] = []
        new: list[Tensor] = []
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                own.append(self.state[key])
                new.append(value)
            else:
                self.state[key].copy_(value)
        torch._foreach_lerp_(own, new, 1 - decay)
