"""How fast this machine trains the chosen network: two steps are timed before the time is planned."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autodl_ray.pipeline.state import Run

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from autodl_ray.train.config import FitConfig

__all__ = ["Pace", "measure_pace"]

_PIXELS = 16 * 224 * 224
"""Of the pictures of a timed step: 16 photos or 64 tiny pictures; more would give nearly the same answer later."""
_MOST_PICTURES = 64
_FORWARD_PIXELS = 4 * 224 * 224
_TOGETHER = 0.85
"""Share of the cores' speed that a training gets: threads wait for each other, and batches have to be made."""
_RUNTIME_GAIN = 1.4
"""onnxruntime against torch in float32, at least (small_resnet; lite0: 3)."""


@dataclass(frozen=True)
class Pace:
    """Speeds of a network on this machine, in pictures a second.

    Attributes:
        train_per_s: Of training steps, on all cores.
        infer_per_s: Of the exported network, estimated.
    """

    train_per_s: float
    infer_per_s: float


def measure_pace(run: Run) -> Pace:
    """Time two training steps and a forward pass of the network of a run, on drawn pixels.

    On processors one thread works and its own time counts, so that other processes (Ray is starting) do not decide.
    It takes about two seconds for photos and a few tenths for tiny pictures.

    Args:
        run: Its network and its training section.
    """
    import torch

    from autodl_ray.train.config import resolve
    from autodl_ray.train.initial import initial_model

    config = resolve(
        run.spec.train,
        run.network.entry,
        preprocess=run.network.preprocess,
        num_classes=run.version.num_classes,
        weights=run.network.weights,
        epochs=1,
        seed=run.spec.seed,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    blank = replace(config, weights="none")  # of the same network, with the same norms: reading weights takes time
    model = initial_model(blank, head_init=None, fresh=True, device=device)
    images, labels = _drawn(config, device)
    cores = 1 if device.type == "cuda" else len(os.sched_getaffinity(0))
    with torch.random.fork_rng():  # dropout draws
        step_s, forward_s = _seconds(config, model, images, labels)
    return Pace(_TOGETHER * cores / step_s, _RUNTIME_GAIN * cores / forward_s)


def _drawn(config: FitConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    import torch

    from autodl_ray.models.preprocess import normalize
    from autodl_ray.seeding import rng_for

    size, rng = config.train_image_size or config.preprocess.size, rng_for(config.seed, "pace")
    count = max(2, min(config.batch_size, _MOST_PICTURES, _PIXELS // size**2))
    pixels = rng.integers(0, 256, (count, size, size, 3), dtype="uint8")
    labels = torch.from_numpy(rng.integers(0, config.num_classes, count))
    return normalize(torch.from_numpy(pixels).to(device), config.preprocess), labels.to(device)


def _seconds(config: FitConfig, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Seconds a picture of a training step in the precision that it will have, and of a float32 forward pass."""
    import torch

    from autodl_ray.train.memory import kept_memory
    from autodl_ray.train.precision import choose_precision, precisions_of, step_seconds
    from autodl_ray.train.threads import torch_threads

    clock = time.perf_counter if images.is_cuda else time.thread_time
    with kept_memory(), torch_threads(None if images.is_cuda else 1):
        precision, samples = config.precision, 0
        if precision not in precisions_of(images.device):  # auto; or what only the workers of a cluster have
            choice = choose_precision(model, images, labels)
            precision, samples = choice.precision, choice.samples
            step_s = choice.seconds[precision] / samples
        if samples < len(images):  # few photos a step are slower each: four take half as long again as 32 do
            step_s = step_seconds(model, images, labels, precision=precision) / len(images)
        images = images[: max(4, _FORWARD_PIXELS // images.shape[-1] ** 2)]
        with torch.inference_mode():
            model.eval()(images)
            times = []
            for _ in range(2):
                began = clock()
                model(images)
                if images.is_cuda:
                    torch.cuda.synchronize()
                times.append(clock() - began)
    forward_s = min(times) / len(images)
    return max(step_s, 1e-9), max(forward_s, 1e-9)
