"""Which precision is fastest on this device: measured, not guessed."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autodl_ray.errors import ResourceError
from autodl_ray.train.threads import torch_threads

__all__ = [
    "Precision",
    "PrecisionChoice",
    "PrecisionMemory",
    "autocast",
    "check_precision",
    "choose_precision",
    "precision_memory",
    "precisions_of",
    "step_seconds",
]

Precision = Literal["32", "bf16", "16"]

_DTYPES: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "16": torch.float16}
_FEW_PIXELS = 4 * 224 * 224
_CALL_BOUND_S = 0.004
"""A step below this is bound by calls, and casts only add some: 32 digits in the small network, 1.2 ms in float32 and
1.9 ms in bf16."""


@dataclass(frozen=True)
class PrecisionChoice:
    """What was chosen and why.

    Attributes:
        precision: The fastest.
        seconds: Of a step of ``samples`` pictures, by precision; those that could not win were not timed.
        samples: In the timed steps.
    """

    precision: Precision
    seconds: Mapping[Precision, float]
    samples: int

    @property
    def note(self) -> str:
        """One line for the user."""
        timed = ", ".join(f"{name} {seconds * 1000:.3g} ms" for name, seconds in self.seconds.items())
        return f"precision {self.precision}: a step of {self.samples} pictures took {timed}"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Run the block in bf16 or fp16 where that is safe, or in float32."""
    dtype = _DTYPES.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def precisions_of(device: torch.device) -> tuple[Precision, ...]:
    """Return what a device computes in: processors in float32 and bf16, GPUs also in fp16 (not run on CUDA)."""
    if device.type == "cpu":
        return ("32", "bf16")
    return ("32", "bf16", "16") if torch.cuda.is_bf16_supported(including_emulation=False) else ("32", "16")


def check_precision(wanted: str, device: torch.device) -> None:
    """Refuse a precision that the device does not have.

    Raises:
        ResourceError: It does not.
    """
    known = precisions_of(device)
    if wanted != "auto" and wanted not in known:
        raise ResourceError(
            f"Training in precision {wanted} is not possible on this device.",
            seen=f"train.precision: {wanted}, device: {device.type}",
            accepted=f"auto, {', '.join(known)}",
            hint="leave train.precision at auto: the fastest is found by timing",
        )


def choose_precision(
    model: nn.Module, images: Tensor, labels: Tensor, *, mean: Callable[[float], float] = float
) -> PrecisionChoice:
    """Time two training steps in every precision of the device on a copy of the model and return the fastest.

    On a processor the steps run in one thread and its CPU time counts, so that other processes do not decide. Where a
    float32 step takes less than 4 ms there, the others are not timed.

    Args:
        model: Left as it is.
        images: (N, 3, S, S) float32, normalised; as many as have the pixels of four pictures of 224 px are used.
        labels: (N,) int64, or (N, C) float32 soft labels.
        mean: Averages a number over the workers, so that all choose the same.
    """
    count = max(4, _FEW_PIXELS // (images.shape[-1] * images.shape[-2]))
    return _timed(model, images[:count], labels[:count], mean=mean)


@dataclass
class PrecisionMemory:
    """What was chosen in this process, so that each trial of a sweep need not time it again."""

    _known: dict[Hashable, PrecisionChoice] = field(default_factory=dict)

    def choose(self, name: str, model: nn.Module, images: Tensor, labels: Tensor) -> PrecisionChoice:
        """Do what :func:`choose_precision` does, once for the same network, and shape of the batch.

        Args:
            name: Of the network; together with its parameters, which of them learn, it says which network it is.
            model: See there.
            images: See there.
            labels: See there.
        """
        shapes = tuple((tuple(p.shape), p.requires_grad) for p in model.parameters())
        key = (name, shapes, tuple(images.shape), labels.ndim, str(images.device))
        if key not in self._known:
            self._known[key] = choose_precision(model, images, labels)
        return self._known[key]


@functools.lru_cache(maxsize=1)
def precision_memory() -> PrecisionMemory:
    """Return the memory of this process."""
    return PrecisionMemory()


def _timed(model: nn.Module, images: Tensor, labels: Tensor, *, mean: Callable[[float], float]) -> PrecisionChoice:
    device = images.device
    seconds: dict[Precision, float] = {}
    with torch_threads(1 if device.type == "cpu" else None):
        for precision in precisions_of(device):
            seconds[precision] = mean(step_seconds(model, images, labels, precision=precision))
            if device.type == "cpu" and seconds["32"] < _CALL_BOUND_S:
                break
    return PrecisionChoice(min(seconds, key=lambda name: seconds[name]), seconds, len(images))


def step_seconds(model: nn.Module, images: Tensor, labels: Tensor, *, precision: str) -> float:
    """Return the shorter of two forward and backward passes in seconds (of this thread), after one that warms up."""
    clock = time.perf_counter if images.is_cuda else time.thread_time
    trial = copy.deepcopy(model).train()
    times = []
    for _ in range(3):
        started = clock()
        with autocast(images.device, precision):
            logits = trial(images)
        loss = F.cross_entropy(logits.float(), labels)
        if loss.requires_grad:
            torch.autograd.backward(loss)
        if images.is_cuda:
            torch.cuda.synchronize()
        times.append(clock() - started)
    return min(times[1:])
