"""Norms of gradients and weights, a few operations on whole lists of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["WeightWatch", "clip_gradients", "gradient_norm"]


def gradient_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Return the L2 norm of all gradients together (parameters without one are left out).

    ``nn.utils.clip_grad_norm_`` returns the same number; this is for trainings that clip nothing.
    """
    return _norm([p.grad for p in parameters if p.grad is not None])


def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> float:
    """Scale all gradients down where their norm together is above ``most``; return what it was.

    The numbers are those of ``nn.utils.clip_grad_norm_``, which multiplies by 1 where nothing is to be clipped, in
    every step.
    """
    import torch

    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return 0.0
    with torch.no_grad():
        total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        norm = float(total)
        if not norm < 0.999 * most:  # not a number included
            torch._foreach_mul_(gradients, (most / (total + 1e-6)).clamp(max=1.0))
    return norm


class WeightWatch:
    """Measures how far one optimizer step moves the weights.

    Copies them, so it is meant for the steps that :meth:`Telemetry.wants_step` asks for, not for every one.

    Args:
        parameters: Those that are trained.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> watch = WeightWatch([weight])
        >>> _ = weight.data.mul_(1.1)
        >>> [round(x, 3) for x in watch.after()]
        [5.5, 0.091]
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        import torch

        self._now = [p.detach() for p in parameters]
        self._before: list[Tensor] = [torch.empty_like(p) for p in self._now]
        if self._now:
            torch._foreach_copy_(self._before, self._now)

    def after(self) -> tuple[float, float]:
        """Return the L2 norm of the weights now, and that of their change since the making over it (0 over 0: 0)."""
        import torch

        if not self._now:
            return 0.0, 0.0
        torch._foreach_sub_(self._before, self._now)
        norm, change = _norm(self._now), _norm(self._before)
        return norm, change / norm if norm > 0 else 0.0


def _norm(tensors: list[Tensor]) -> float:
    import torch

    if not tensors:
        return 0.0
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors))))
