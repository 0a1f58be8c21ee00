"""Whether INT8 is delivered: what it loses and gains beside FP32, with the noise of both, against the limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts.bundle import VariantFigures
from autodl_ray.export.speed import SpeedRatio
from autodl_ray.spec import ExportSpec

__all__ = ["Decision", "Int8Figures", "PairedLoss", "decide", "paired_loss"]

_Z = 1.96
_ROUNDING = 1e-9


@dataclass(frozen=True)
class PairedLoss:
    """Accuracy lost on the same pictures, as a share; negative where INT8 is better.

    Attributes:
        lost: The difference that was seen.
        low: Lower end of the 95 % interval.
        high: Upper end of it.
        only_fp32: Pictures that FP32 alone has right.
        only_int8: Pictures that INT8 alone has right.
        pictures: How many were compared.
    """

    lost: float
    low: float
    high: float
    only_fp32: int
    only_int8: int
    pictures: int


def paired_loss(fp32: npt.NDArray[np.int64], int8: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> PairedLoss:
    """Compare two models on the same pictures: only those that one of them alone has right tell anything.

    The interval is that of Bonett and Price (2012) for the difference of paired proportions: one picture is added to
    either side, so that it has a width where no picture differs.

    Args:
        fp32: (N,) predicted classes.
        int8: (N,) predicted classes.
        labels: (N,) true classes.
    """
    only_fp32 = int(((fp32 == labels) & (int8 != labels)).sum())
    only_int8 = int(((fp32 != labels) & (int8 == labels)).sum())
    count = len(labels)
    lost, gained = (only_fp32 + 1) / (count + 2), (only_int8 + 1) / (count + 2)
    half = _Z * math.sqrt((lost + gained - (lost - gained) ** 2) / (count + 2))
    seen = (only_fp32 - only_int8) / count
    return PairedLoss(seen, lost - gained - half, lost - gained + half, only_fp32, only_int8, count)


@dataclass(frozen=True)
class Int8Figures:
    """FP32 and INT8 side by side; the noise of the differences where it was measured."""

    fp32: VariantFigures
    int8: VariantFigures
    loss: PairedLoss | None = None
    speed: SpeedRatio | None = None

    @property
    def speedup(self) -> float:
        """Speed of INT8 by that of FP32."""
        return self.speed.ratio if self.speed is not None else self.int8.images_per_s / self.fp32.images_per_s

    @property
    def drop(self) -> float:
        """Validation accuracy lost; negative where INT8 is better."""
        return self.fp32.accuracy - self.int8.accuracy


@dataclass(frozen=True)
class Decision:
    """Whether INT8 is delivered, and why."""

    kept: bool
    reason: str


def decide(figures: Int8Figures, spec: ExportSpec) -> Decision:
    """Keep INT8 where it is at least ``min_speedup`` times as fast and loses at most ``max_drop`` of accuracy.

    Args:
        figures: What was measured.
        spec: The limits.

    Returns:
        The decision; its reason names the figures with their noise, and the limits that were missed.
    """
    speed = f"{figures.speedup:.2f} times the speed of FP32{_speed_noise(figures.speed)}"
    drop = f"{_points(figures.drop)}{_loss_noise(figures.loss)}"
    failed = []
    if figures.speedup < spec.min_speedup:
        failed.append(f"too slow: {speed}, at least {spec.min_speedup:g} asked for")
    if figures.drop > spec.max_drop + _ROUNDING:
        failed.append(f"too inaccurate: {drop}, at most {100 * spec.max_drop:g} accepted")
    return Decision(not failed, "; ".join(failed) or f"{speed}, {drop}")


def _points(drop: float) -> str:
    """Write a difference of accuracy as people say it."""
    return f"{abs(100 * drop):.2f} points of validation accuracy {'lost' if drop >= 0 else 'gained'}"


def _speed_noise(speed: SpeedRatio | None) -> str:
    return "" if speed is None else f" ({speed.low:.2f} to {speed.high:.2f})"


def _loss_noise(loss: PairedLoss | None) -> str:
    if loss is None:
        return ""
    return f" (95 % interval {100 * loss.low:+.1f} to {100 * loss.high:+.1f} lost, {loss.pictures} pictures)"
