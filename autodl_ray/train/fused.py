"""AdamW and SGD in one call of torch's fused kernels for all tensors, with the state of torch's own optimizers.

torch's classes import its compiler at their first use, 1.2 s of CPU time in every process, and spend 0.15 ms a step on
what a training here never asks for. The numbers are theirs (tests/train/test_fused.py), and so is the state_dict.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["FusedAdamW", "FusedOptimizer", "FusedSGD"]

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


class _Part(NamedTuple):
    """Parameters of one device and type that have gradients, and the lists of their state, by name."""

    params: list[Tensor]
    state: dict[str, list[Tensor]]


class FusedOptimizer(ABC):
    """What both have in common.

    Args:
        groups: Each with ``params``, ``lr``, ``weight_decay``, and what else the caller keeps there.

    Attributes:
        param_groups: As torch's optimizers have them; ``lr`` may be changed between steps.
        state: Of each parameter that had a gradient once.
    """

    def __init__(self, groups: Iterable[Mapping[str, Any]]) -> None:
        self.param_groups: list[dict[str, Any]] = [{**group, "params": list(group["params"])} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self._parts: list[tuple[list[int], list[_Part]]] = [([], []) for _ in self.param_groups]

    @abstractmethod
    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return the state before the first step."""

    @abstractmethod
    def _apply(self, group: Mapping[str, Any], part: _Part, grads: list[Tensor]) -> None:
        """Change the parameters."""

    def step(self) -> None:
        """Change the parameters that have gradients."""
        with torch.no_grad():
            for index, group in enumerate(self.param_groups):
                for part in self._with_gradients(index):
                    self._apply(group, part, [p.grad for p in part.params if p.grad is not None])

    def zero_grad(self) -> None:
        """Let go of all gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return what torch's optimizer of the same name returns: parameters are numbered over all groups."""
        numbers = {p: i for i, p in enumerate(p for group in self.param_groups for p in group["params"])}
        return {
            "state": {numbers[p]: dict(state) for p, state in self.state.items()},
            "param_groups": [{**group, "params": [numbers[p] for p in group["params"]]} for group in self.param_groups],
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from there; the tensors are copied.

        Raises:
            ValueError: It is of other groups.
        """
        sizes = [len(group["params"]) for group in saved["param_groups"]]
        if sizes != [len(group["params"]) for group in self.param_groups]:
            raise ValueError("loaded state dict has other groups of parameters than the optimizer")
        params = [p for group in self.param_groups for p in group["params"]]
        for group, kept in zip(self.param_groups, saved["param_groups"], strict=True):
            group.update({name: value for name, value in kept.items() if name != "params"})
        self.state = {
            params[number]: {name: value.to(params[number].device, copy=True) for name, value in state.items()}
            for number, state in saved["state"].items()
        }
        self._parts = [([], []) for _ in self.param_groups]

    def _with_gradients(self, index: int) -> list[_Part]:
        """Sort the parameters of a group; what learns seldom changes, so the lists are kept."""
        params = [p for p in self.param_groups[index]["params"] if p.grad is not None]
        ids = [id(p) for p in params]
        if self._parts[index][0] != ids:
            self._parts[index] = (ids, self._sorted(params))
        return self._parts[index][1]

    def _sorted(self, params: Iterable[Tensor]) -> list[_Part]:
        by_type: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for parameter in params:
            by_type.setdefault((parameter.device, parameter.dtype), []).append(parameter)
            if parameter not in self.state:
                self.state[parameter] = self._begin(parameter)
        return [
            _Part(alike, {name: [self.state[p][name] for p in alike] for name in self.state[alike[0]]})
            for alike in by_type.values()
        ]


class FusedAdamW(FusedOptimizer):
    """AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019), with torch's defaults."""

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        return {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
        }

    def _apply(self, group: Mapping[str, Any], part: _Part, grads: list[Tensor]) -> None:
        state = part.state
        torch._foreach_add_(state["step"], 1)
        torch._fused_adamw_(
            part.params,
            grads,
            state["exp_avg"],
            state["exp_avg_sq"],
            [],
            state["step"],
            lr=group["lr"],
            beta1=_BETA1,
            beta2=_BETA2,
            weight_decay=group["weight_decay"],
            eps=_EPS,
            amsgrad=False,
            maximize=False,
        )


class FusedSGD(FusedOptimizer):
    """Gradient descent with Nesterov's momentum.

    Args:
        groups: See :class:`FusedOptimizer`.
        momentum: In [0, 1); 0: none.
    """

    def __init__(self, groups: Iterable[Mapping[str, Any]], *, momentum: float) -> None:
        super().__init__(groups)
        self.momentum = momentum

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        # torch begins with a copy of the first gradient: without dampening, that is what a buffer of zeros becomes.
        return {"momentum_buffer": torch.zeros_like(parameter, requires_grad=False)} if self.momentum else {}

    def _apply(self, group: Mapping[str, Any], part: _Part, grads: list[Tensor]) -> None:
        torch._fused_sgd_(
            part.params,
            grads,
            part.state.get("momentum_buffer", []),
            weight_decay=group["weight_decay"],
            momentum=self.momentum,
            lr=group["lr"],
            dampening=0.0,
            nesterov=self.momentum > 0,
            maximize=False,
            is_first_step=False,
        )
