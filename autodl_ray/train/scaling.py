"""Loss scaling for half precision: small gradients do not vanish, and a step that overflows is left out."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from autodl_ray.errors import StageError
from autodl_ray.train.fused import FusedOptimizer

__all__ = ["GradientScaler", "NoScaler", "Scaler", "make_scaler"]

_MOST_SKIPPED = 30
"""Skipped in a row: from 2 ** 16 the scale has then gone below 1e-4, and it is no longer the scale that overflows."""


class Scaler(Protocol):
    """What the step asks of it, in this order."""

    scale_now: float | None
    """The factor of the loss; None: there is none."""

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss that is differentiated."""
        ...

    def unscale(self, optimizer: FusedOptimizer) -> None:
        """Divide the gradients, once a step, before they are measured or clipped."""
        ...

    def step(self, optimizer: FusedOptimizer) -> bool:
        """Step unless a gradient is not finite; return whether it did."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into a checkpoint."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


class NoScaler:
    """For float32 and bf16, whose range needs no scaling."""

    scale_now: float | None = None

    def scale(self, loss: Tensor) -> Tensor:
        """Return it as it is."""
        return loss

    def unscale(self, optimizer: FusedOptimizer) -> None:
        """Do nothing."""

    def step(self, optimizer: FusedOptimizer) -> bool:
        """Step."""
        optimizer.step()
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


class GradientScaler:
    """torch's dynamic scaling (Micikevicius et al., Mixed Precision Training, 2018).

    The scale is halved when a gradient overflows, and doubled after 2,000 steps without. Workers see the same averaged
    gradients, so they skip the same steps. Tested on a processor with gradients that are made to overflow; not run on
    CUDA.

    Args:
        device: Where the gradients are.
        init_scale: The first scale.
    """

    def __init__(self, device: torch.device, *, init_scale: float = 2.0**16) -> None:
        self._scaler = torch.amp.GradScaler(device.type, init_scale=init_scale)
        self._skipped = 0
        self.scale_now: float | None = init_scale

    def scale(self, loss: Tensor) -> Tensor:
        """Multiply the loss."""
        return self._scaler.scale(loss)

    def unscale(self, optimizer: FusedOptimizer) -> None:
        """Divide the gradients and look for what is not finite."""
        self._scaler.unscale_(optimizer)  # type: ignore[arg-type]  # it asks for the groups alone

    def step(self, optimizer: FusedOptimizer) -> bool:
        """Step, or skip and lower the scale.

        Raises:
            StageError: Too many steps were skipped in a row.
        """
        before = self._scaler.get_scale()
        self._scaler.step(optimizer)  # type: ignore[arg-type]
        self._scaler.update()
        self.scale_now = self._scaler.get_scale()
        self._skipped = self._skipped + 1 if self.scale_now < before else 0
        if self._skipped > _MOST_SKIPPED:
            raise StageError(
                "Half precision overflows at every step.",
                seen=f"{self._skipped} steps were skipped in a row, the loss scale is {self.scale_now:g}",
                hint="use train.precision bf16 or 32, or lower train.lr",
            )
        return self._skipped == 0

    def state_dict(self) -> dict[str, Any]:
        """Return the scale and its counters."""
        return {**self._scaler.state_dict(), "skipped": self._skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with that scale."""
        state = dict(state)
        self._skipped = int(state.pop("skipped", 0))
        self._scaler.load_state_dict(state)
        self.scale_now = self._scaler.get_scale()


def make_scaler(precision: str, device: torch.device) -> Scaler:
    """Return a scaler for ``16``, and none for the other precisions."""
    return GradientScaler(device) if precision == "16" else NoScaler()
