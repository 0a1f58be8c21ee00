"""Optimizers over groups of parameters, and the moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autodl_ray.models.classifier import Classifier
from autodl_ray.train.config import FitConfig

__all__ = ["MovingAverage", "build_optimizer", "param_groups", "set_lr"]


def param_groups(model: Classifier, config: FitConfig) -> list[dict[str, object]]:
    """Divide the parameters into backbone and head, each with and without weight decay.

    Vectors (the scales and shifts of norms, biases) do not decay. Each group has its peak rate in ``peak_lr``.
    """
    groups: list[dict[str, object]] = []
    for module, lr in ((model.backbone, config.lr), (model.head, config.lr * config.head_lr_factor)):
        for decays in (True, False):
            params = [p for p in module.parameters() if p.requires_grad and (p.ndim > 1) == decays]
            if params:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": params, "lr": lr, "peak_lr": lr, "weight_decay": decay})
    return groups


def build_optimizer(model: Classifier, config: FitConfig) -> torch.optim.Optimizer:
    """Make the optimizer; the fused implementation takes one call for all tensors."""
    groups = param_groups(model, config)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to ``factor`` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


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
