"""Which precision is faster on this processor: measured, not guessed."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autodl_ray.train.threads import torch_threads

__all__ = ["Precision", "autocast", "faster_precision", "step_seconds"]

Precision = Literal["32", "bf16", "16"]

_WORTH_TIMING_PX = 16  # below this a step is bound by calls, and bf16 casts only add some
_TINY_PX = 64
_SAMPLES = 4
_TINY_SAMPLES = 32  # with fewer of them the calls would be timed, not the work
_WORTH = 1.25
"""bf16 has to be so much faster: where it is a close race the same seed shall not give two results."""


@contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """Run the block in bf16 where that is safe, or in float32."""
    with torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext():
        yield


def faster_precision(model: nn.Module, images: Tensor, labels: Tensor) -> Precision:
    """Time two training steps in each precision on a copy of the model and return the faster one.

    On a processor the steps run in one thread and its CPU time counts, so that other processes do not decide.

    Args:
        model: Left as it is.
        images: (N, 3, S, S) float32, normalised; the first 4 are used, or 32 tiny ones.
        labels: (N,) int64, or (N, C) float32 soft labels.
    """
    if images.shape[-1] < _WORTH_TIMING_PX:
        return "32"
    samples = _SAMPLES if images.shape[-1] > _TINY_PX else _TINY_SAMPLES
    with torch_threads(1 if images.device.type == "cpu" else None):
        seconds = {p: step_seconds(model, images[:samples], labels[:samples], precision=p) for p in ("bf16", "32")}
    return "bf16" if _WORTH * seconds["bf16"] < seconds["32"] else "32"


def step_seconds(model: nn.Module, images: Tensor, labels: Tensor, *, precision: Literal["32", "bf16"]) -> float:
    """Return the shorter of two forward and backward passes in seconds (of this thread), after one that warms up."""
    clock = time.perf_counter if images.is_cuda else time.thread_time
    trial = copy.deepcopy(model).train()
    times = []
    for _ in range(3):
        started = clock()
        with autocast(images.device, precision):
            logits = trial(images)
        torch.autograd.backward(F.cross_entropy(logits.float(), labels))
        if images.is_cuda:
            torch.cuda.synchronize()
        times.append(clock() - started)
    return min(times[1:])
