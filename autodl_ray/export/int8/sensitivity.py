"""Which layers suffer most from 8 bits: each is rounded alone, and the answers are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from autodl_ray.export.graph import LOGITS, PIXELS
from autodl_ray.export.int8.calibration import Range
from autodl_ray.export.int8.layers import alone, layers_of
from autodl_ray.models.predictor import open_session

__all__ = ["divergence", "float_sets", "sensitivities"]

Pixels = npt.NDArray[np.float32]


def divergence(wanted: npt.NDArray[np.float32], seen: npt.NDArray[np.float32]) -> float:
    """Return the mean Kullback-Leibler divergence of the probabilities of logits ``seen`` from ``wanted`` (N, C)."""
    logs = [rows - np.logaddexp.reduce(rows, axis=1, keepdims=True) for rows in (wanted.astype(np.float64), seen)]
    return float((np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1).mean())


def sensitivities(core: onnx.ModelProto, ranges: Mapping[str, Range], batches: Sequence[Pixels]) -> dict[str, float]:
    """Return layer → how far the answers move when it alone is in 8 bits.

    Args:
        core: Float, with named nodes.
        ranges: Tensor → range.
        batches: Calibration pictures, (N, 3, S, S) float32.
    """
    wanted = _logits(core, batches)
    return {layer.name: divergence(wanted, _logits(alone(core, layer, ranges), batches)) for layer in layers_of(core)}


def float_sets(found: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Return the sets of layers to keep in float, the smallest first: the 1, 2, 4, 8 … most sensitive, at most half.

    Example:
        >>> float_sets({"a": 0.1, "b": 0.3, "c": 0.2, "d": 0.0})
        [('b',), ('b', 'c')]
    """
    ordered = sorted(found, key=lambda name: -found[name])
    counts, count = [], 1
    while count <= len(ordered) // 2:
        counts.append(count)
        count *= 2
    return [tuple(ordered[:count]) for count in counts]


def _logits(model: onnx.ModelProto, batches: Sequence[Pixels]) -> npt.NDArray[np.float32]:
    session = open_session(model.SerializeToString())
    return np.concatenate([session.run([LOGITS], {PIXELS: pixels})[0] for pixels in batches])
