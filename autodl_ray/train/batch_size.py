"""``batch_size: auto``: a few sizes are timed on a copy of the network, and the smallest of the fast ones is taken."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from autodl_ray.models.classifier import Classifier
from autodl_ray.seeding import seed_for
from autodl_ray.train.config import BASE_BATCH, FitConfig
from autodl_ray.train.losses import classification_loss
from autodl_ray.train.micro import is_out_of_memory
from autodl_ray.train.peers import Peers
from autodl_ray.train.precision import autocast

__all__ = ["BatchChoice", "choose_size", "measure_batch_size", "scaled_lr"]

_SIZES = (16, 32, 64, 128, 256, 512, 1024)
_LEAST_STEPS = 20  # an epoch of fewer steps learns too little
_BUDGET_S = 8.0
_GOOD_ENOUGH = 0.9
_GAIN = 1.05


@dataclass(frozen=True)
class BatchChoice:
    """What was measured and chosen.

    Attributes:
        size: Samples a step, over all workers.
        seconds: Of a step by its size; sizes that did not fit, or promised nothing, are missing.
        lr: Of the backbone, scaled to the size.
        ended: Why no larger size was timed.
    """

    size: int
    seconds: Mapping[int, float]
    lr: float
    ended: str

    @property
    def note(self) -> str:
        """One line for the user."""
        speeds = ", ".join(f"{size}: {size / s:.4g}" for size, s in self.seconds.items())
        return f"batch_size {self.size}, lr {self.lr:.3g} (images/s by batch size {speeds}; {self.ended})"

    def apply(self, config: FitConfig) -> FitConfig:
        """Return the configuration with this batch size and its learning rate."""
        return replace(config, batch_size=self.size, lr=self.lr)


def measure_batch_size(config: FitConfig, model: Classifier, peers: Peers, *, num_train: int) -> BatchChoice:
    """Time two steps of each size on a copy of the network, with noise for pictures.

    Sizes are doubled until a step does not fit into memory, the speed grows by less than 5 %, an epoch would have
    fewer than 20 steps, or 8 s have passed. Workers agree: the slowest counts.

    Args:
        config: Of the training.
        model: Left as it is.
        peers: The other workers, each of which takes its share of the batch.
        num_train: Samples of an epoch.
    """
    most = max(_SIZES[0], num_train // _LEAST_STEPS)
    side = config.train_image_size or config.preprocess.size
    trial = copy.deepcopy(model).train()
    precision = "32" if config.precision == "auto" else config.precision

    def step_s(size: int) -> float | None:
        share = -(-size // peers.world_size)
        made = torch.Generator().manual_seed(seed_for(config.seed, "batch size"))
        images = torch.randn(share, 3, side, side, generator=made).to(peers.device, memory_format=torch.channels_last)
        labels = torch.arange(share, device=peers.device) % config.num_classes
        mine = _seconds(trial, images, labels, precision)
        # A mean of infinity is infinity: where one worker has no room, none has.
        agreed = peers.mean(float("inf") if mine is None else mine)
        return None if agreed == float("inf") else agreed

    sizes = tuple(size for size in _SIZES if peers.world_size <= size <= most) or (max(BASE_BATCH, peers.world_size),)
    seconds, ended = _time_sizes(sizes, step_s)
    size = choose_size(seconds) if seconds else sizes[0]
    return BatchChoice(size, seconds, scaled_lr(config.lr, size, config.optimizer), ended)


def _time_sizes(sizes: tuple[int, ...], step_s: Callable[[int], float | None]) -> tuple[dict[int, float], str]:
    seconds: dict[int, float] = {}
    spent = 0.0
    for size in sizes:
        taken = step_s(size)
        if taken is None:
            return seconds, f"{size} does not fit into memory"
        before = max(seconds, default=None)
        seconds[size] = taken
        spent += 2 * taken
        if before is not None and size / taken < _GAIN * before / seconds[before]:
            return seconds, "more is not faster"
        if spent > _BUDGET_S:
            return seconds, "more takes too long to time"
    return seconds, f"at least {_LEAST_STEPS} steps an epoch"


def choose_size(seconds: Mapping[int, float]) -> int:
    """Return the smallest size with at least 90 % of the best speed: small batches generalise better at equal cost.

    Example:
        >>> choose_size({16: 1.0, 32: 1.2, 64: 2.2})
        32
    """
    best = max(size / s for size, s in seconds.items())
    return min(size for size, s in seconds.items() if size / s >= _GOOD_ENOUGH * best)


def scaled_lr(lr: float, size: int, optimizer: str) -> float:
    """Scale a learning rate that is meant for a batch of 32 to another size.

    By the root of the ratio for Adam (Malladi et al., On the SDEs and Scaling Rules for Adaptive Gradient Algorithms,
    2022), by the ratio itself for SGD (Goyal et al., Accurate, Large Minibatch SGD, 2017).
    """
    ratio = size / BASE_BATCH
    return float(lr * (ratio**0.5 if optimizer == "adamw" else ratio))


def _seconds(model: nn.Module, images: Tensor, labels: Tensor, precision: str) -> float | None:
    """Return the seconds of the second of two steps; None where memory runs out."""
    taken = 0.0
    try:
        for _ in range(2):
            began = time.perf_counter()
            with autocast(images.device, precision):
                logits = model(images)
            torch.autograd.backward(classification_loss(logits.float(), labels))
            model.zero_grad(set_to_none=True)
            if images.is_cuda:
                torch.cuda.synchronize()
            taken = time.perf_counter() - began
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        model.zero_grad(set_to_none=True)
        return None
    return taken
