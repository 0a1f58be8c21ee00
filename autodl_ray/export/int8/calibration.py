"""The ranges of a network's activations on calibration pictures, by several methods from one pass.

onnxruntime's own percentile calibration keeps every activation of every picture (26 MB a picture for
efficientnet_lite0 at 224 px) and builds histograms in numpy. Here each tensor gives a bounded, evenly spaced sample of
its values, from which every method reads its range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx

from autodl_ray.export.graph import PIXELS, with_outputs
from autodl_ray.models.predictor import open_session

__all__ = ["METHODS", "ActivationSample", "CalibrationMethod", "Range", "observe", "ranges"]

CalibrationMethod = Literal["minmax", "percentile", "mse", "entropy"]
METHODS: tuple[CalibrationMethod, ...] = ("percentile", "mse", "entropy", "minmax")
"""In the order of preference where accuracies are equal."""

_PERCENTILE = 99.99
_VALUES = 4096  # of a tensor a picture
_SHRINK = np.linspace(0.3, 1.0, 29)
_CLAMPS = ("Clip", "Relu")
_BINS = 2048
_LEVELS = 256

Range = tuple[float, float]


@dataclass(frozen=True)
class ActivationSample:
    """What was seen of one tensor.

    Attributes:
        low: Smallest value.
        high: Largest value.
        values: Evenly spaced sample of the values, float32.
    """

    low: float
    high: float
    values: npt.NDArray[np.float32]


def observe(core: onnx.ModelProto, batches: Iterable[npt.NDArray[np.float32]]) -> dict[str, ActivationSample]:
    """Run the network on calibration pictures and sample its activations.

    Args:
        core: From ``pixels`` (N, 3, S, S) to logits.
        batches: Normalised pixels, (N, 3, S, S) float32.

    Returns:
        Tensor name → what was seen of it. A tensor that goes into a clamp (``Relu``, ``Clip``) and nowhere else is
        seen behind it, because the quantized graph needs it only there.
    """
    clamped = _clamped(core)
    names = [PIXELS, *(n.output[0] for n in core.graph.node if n.output[0] not in clamped)]
    session = open_session(with_outputs(core, names))
    low, high = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in names}
    for count, pixels in enumerate(batches):
        for name, value in zip(names, [pixels, *session.run(names[1:], {PIXELS: pixels})], strict=True):
            low[name], high[name] = min(low[name], float(value.min())), max(high[name], float(value.max()))
            step = max(1, value.size // (_VALUES * len(pixels)))
            parts[name].append(value.ravel()[count % step :: step].copy())
    seen = {name: ActivationSample(low[name], high[name], np.concatenate(parts[name])) for name in names}
    for before, after in clamped.items():
        while after in clamped:
            after = clamped[after]
        seen[before] = seen[after]
    return seen


def ranges(seen: Mapping[str, ActivationSample], method: CalibrationMethod) -> dict[str, Range]:
    """Return the range (low ≤ 0 ≤ high) that 8 bits shall cover, by tensor name.

    Args:
        seen: From :func:`observe`.
        method: ``minmax`` covers everything; ``percentile`` leaves 0.01 % out at either end; ``mse`` shrinks the whole
            range to where the mean squared error of rounding and clipping is least; ``entropy`` to where the
            distribution in 256 steps diverges least from the one that was seen (Migacz, 2017).
    """
    known: dict[int, Range] = {}
    return {name: known.setdefault(id(sample), _range(sample, method)) for name, sample in seen.items()}


def _range(sample: ActivationSample, method: CalibrationMethod) -> Range:
    low, high = min(0.0, sample.low), max(0.0, sample.high)
    if method == "percentile":
        ends = np.percentile(sample.values, [100 - _PERCENTILE, _PERCENTILE])
        low, high = max(low, min(0.0, float(ends[0]))), min(high, max(0.0, float(ends[1])))
    elif method == "mse":
        shrink = min(_SHRINK, key=lambda s: (_error(sample.values[::8], low * s, high * s), -s))
        low, high = low * float(shrink), high * float(shrink)
    elif method == "entropy" and high > low:
        inexact = sample.values[sample.values != 0.0]  # zero is a step of every range; a ReLU gives half of all values
        counts = np.histogram(inexact, bins=_BINS, range=(low, high))[0].astype(np.float64)
        shrink = min(_SHRINK, key=lambda s: (_divergence(counts, low, high, float(s)), -s))
        low, high = low * float(shrink), high * float(shrink)
    return low, high


def _divergence(counts: npt.NDArray[np.float64], low: float, high: float, shrink: float) -> float:
    """Kullback-Leibler divergence of 256 steps over the shrunk range from what was seen, clipped to that range."""
    first = round(-low * (1 - shrink) / (high - low) * _BINS)
    last = max(first + _LEVELS, _BINS - round(high * (1 - shrink) / (high - low) * _BINS))
    first, last = max(0, min(first, _BINS - _LEVELS)), min(last, _BINS)
    inside = counts[first:last]
    seen = inside.copy()
    seen[0] += counts[:first].sum()
    seen[-1] += counts[last:].sum()
    starts = np.arange(_LEVELS) * len(inside) // _LEVELS
    sizes = np.diff([*starts, len(inside)])
    filled = inside > 0
    held = np.maximum(np.add.reduceat(filled.astype(np.float64), starts), 1.0)
    rounded = np.repeat(np.add.reduceat(inside, starts) / held, sizes) * filled
    p, q = seen / max(seen.sum(), 1.0), rounded / max(rounded.sum(), 1.0)
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-9))).sum())


def _error(values: npt.NDArray[np.float32], low: float, high: float) -> float:
    """Mean squared error of 256 steps between low and high."""
    step = (high - low) / 255
    if step <= 0:
        return float(np.square(values).mean())
    rounded = np.rint(np.clip(values, low, high) / step) * step
    return float(np.square(values - rounded).mean())


def _clamped(core: onnx.ModelProto) -> dict[str, str]:
    """Tensor → the output of the clamp that alone uses it."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in core.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outputs = {o.name for o in core.graph.output} | {PIXELS}
    return {
        name: nodes[0].output[0]
        for name, nodes in users.items()
        if len(nodes) == 1 and nodes[0].op_type in _CLAMPS and nodes[0].input[0] == name and name not in outputs
    }
