"""The learning-rate range test: one short training with a rate that grows, to see where it learns and where it breaks.

Smith, Cyclical Learning Rates for Training Neural Networks, 2017.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autodl_ray.augment.policy import AugmentPolicy
from autodl_ray.errors import InputError
from autodl_ray.train.config import FitConfig
from autodl_ray.train.initial import initial_model
from autodl_ray.train.memory import kept_memory
from autodl_ray.train.peers import Alone, StepVote
from autodl_ray.train.plan import steps_per_epoch
from autodl_ray.train.precision import check_precision
from autodl_ray.train.slices import sliced
from autodl_ray.train.source import BatchLike, Source
from autodl_ray.train.step import Place, Stepper
from autodl_ray.train.threads import torch_threads

__all__ = ["RULE", "LrRange", "lr_range_test", "suggest"]

RULE = "where the smoothed loss falls fastest over the logarithm of the rate, before its lowest point"

_DIVERGED = 4.0
_LEAST = 10


@dataclass(frozen=True)
class LrRange:
    """What a range test saw.

    Attributes:
        lrs: Peak rates of the backbone that were tried, one a step.
        losses: The training loss of each step, before its update.
        smoothed: The same, averaged over neighbours.
        suggested: By ``RULE``; None when the loss never fell.
        lowest: Rate at the lowest smoothed loss: above it the training begins to break.
        ended: ``all steps were done`` or why not.
        batch_size: Samples a step: the rate is meant for it.
        precision: It was done in.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggested: float | None
    lowest: float
    ended: str
    batch_size: int
    precision: str


def lr_range_test(
    config: FitConfig,
    source: Source,
    *,
    steps: int = 100,
    low: float = 1e-6,
    high: float = 1.0,
    num_threads: int | None = None,
) -> LrRange:
    """Train a network of its own for at most ``steps`` steps while the rate grows from ``low`` to ``high``.

    Nothing is kept: neither weights nor files. The rates of other groups (the head, stages) keep their ratio to that
    of the backbone. It ends early when the loss is four times its best (means of five steps), or no number.

    Args:
        config: Of the training that the rate is for; its own rate only counts for the ratios.
        source: The batches.
        steps: At least 10.
        low: First rate.
        high: Last rate.
        num_threads: Of torch; None: as they are.

    Raises:
        InputError: The range or the number of steps makes no sense.
        ResourceError: The device does not have the precision.
    """
    if steps < _LEAST or not 0 < low < high:
        raise InputError(
            "This is no range of learning rates.",
            seen=f"{low:g} to {high:g} in {steps} steps",
            accepted=f"0 < low < high, at least {_LEAST} steps",
        )
    peers = Alone()
    check_precision(config.precision, peers.device)
    rates = np.geomspace(low, high, steps)
    losses: list[float] = []
    ended = "all steps were done"
    with (
        tempfile.TemporaryDirectory(prefix="autodl-lr-") as folder,
        kept_memory(),
        torch_threads(num_threads),
        torch.random.fork_rng(devices=[peers.device] if peers.device.type == "cuda" else []),
    ):
        model = initial_model(config, head_init=None, fresh=True, device=peers.device)
        stepper = Stepper(config, model, peers, folder=Path(folder))
        side = config.train_image_size or config.preprocess.size
        with sliced(model.backbone, image_size=side, device=peers.device) as slices:
            stepper.slices = slices
            for i, (place, batch) in enumerate(_batches(config, source, steps)):
                vote = StepVote(len(batch.labels), steps, False)
                losses.append(stepper.step(batch, vote, place, factor=rates[i] / config.lr, watch=False).loss)
                if _is_diverged(losses):
                    ended = f"the loss was {_DIVERGED:g} times its best after {i + 1} steps"
                    break
        precision = stepper.precision or "32"
    kept = [loss for loss in losses if math.isfinite(loss)]
    smoothed = _smooth(kept)
    return LrRange(
        lrs=tuple(float(rate) for rate in rates[: len(kept)]),
        losses=tuple(kept),
        smoothed=tuple(smoothed),
        suggested=suggest(rates[: len(kept)].tolist(), smoothed),
        lowest=float(rates[int(np.argmin(smoothed))]) if kept else low,
        ended=ended,
        batch_size=config.batch_size,
        precision=precision,
    )


def suggest(lrs: list[float], smoothed: list[float]) -> float | None:
    """Return the rate by ``RULE``, or None where the loss does not fall.

    Args:
        lrs: Growing by a constant factor.
        smoothed: Loss at each.
    """
    lowest = int(np.argmin(smoothed)) if smoothed else 0
    if lowest < 2:
        return None
    slopes = np.gradient(np.asarray(smoothed[: lowest + 1]))
    at = int(np.argmin(slopes))
    return float(lrs[at]) if slopes[at] < 0 else None


def _batches(config: FitConfig, source: Source, steps: int) -> Iterator[tuple[Place, BatchLike]]:
    """Yield the batches of as many epochs as the steps need, with the place of each."""
    epochs = source.train_epochs(
        start=0,
        stop=-(-steps // steps_per_epoch(source.num_train, config.batch_size)),
        batch_size=config.batch_size,
        augment=AugmentPolicy.parse(config.augment, magnitude=config.augment_magnitude),
        image_size=config.train_image_size or config.preprocess.size,
        balanced=config.balanced,
        replicate=config.replicate,
    )
    done = 0
    try:
        for epoch, batches in enumerate(epochs):
            for step, batch in enumerate(batches):
                if done == steps:
                    return
                yield Place(epoch, step, done / steps), batch
                done += 1
    finally:
        close = getattr(epochs, "close", None)
        if close is not None:
            close()


def _smooth(losses: list[float]) -> list[float]:
    """Average over neighbours on both sides, a bell of a tenth of the steps: one that looks back only would lag."""
    values = np.asarray(losses, dtype=np.float64)
    at = np.arange(len(values))
    width = max(1.0, len(values) / 25)
    weights = np.exp(-0.5 * ((at[:, None] - at[None, :]) / width) ** 2)
    return [float(v) for v in (weights @ values) / weights.sum(axis=1)]


def _is_diverged(losses: list[float]) -> bool:
    """Whether the last five steps are, on average, far above the best five; a number is missing: yes."""
    if not math.isfinite(losses[-1]):
        return True
    if len(losses) < _LEAST:
        return False
    averages = np.convolve(losses, np.ones(5) / 5, mode="valid")
    return float(averages[-1]) > _DIVERGED * float(averages.min())
