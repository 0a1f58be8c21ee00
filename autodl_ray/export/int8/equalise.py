"""Cross-layer equalisation: channels of one tensor are scaled to like ranges, and the next layer scales them back.

After Nagel et al. (2019), "Data-Free Quantization Through Weight Equalization and Bias Correction". Weights have a
scale for each output channel here, so that it is the activations, which share one scale, that gain; their ranges are
measured on calibration pictures. The square root of the ratio divides the gain between a tensor and the weights behind
it; a depthwise layer behind has a scale for each channel itself and takes all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from autodl_ray.export.graph import PIXELS, with_outputs
from autodl_ray.export.int8.layers import weights_by_name
from autodl_ray.models.predictor import open_session

__all__ = ["Link", "equalised", "links_of"]

_MOST = 16.0
_CLAMPS = ("Relu", "Clip")


@dataclass(frozen=True)
class Link:
    """A convolution whose output goes to one other and nowhere else, through a clamp at most.

    Attributes:
        first: Node that makes the channels.
        second: Node that takes them.
        tensor: What the second one takes.
        depthwise: Whether the second one has one filter a channel.
    """

    first: str
    second: str
    tensor: str
    depthwise: bool


def links_of(core: onnx.ModelProto) -> tuple[Link, ...]:
    """Return the pairs of convolutions between which channels can be scaled.

    A scale passes through ``Relu``, and upwards through ``Clip`` at 0 and m, as long as no channel then exceeds m.
    """
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in core.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    constants = weights_by_name(core)
    kept = {output.name for output in core.graph.output}
    found = []
    for first in core.graph.node:
        if first.op_type != "Conv" or first.input[1] not in constants:
            continue
        tensor, following = first.output[0], users.get(first.output[0], [])
        if len(following) == 1 and following[0].op_type in _CLAMPS and _from_zero(following[0], constants):
            tensor = following[0].output[0]
            following = users.get(tensor, [])
        if len(following) != 1 or tensor in kept or following[0].op_type != "Conv":
            continue
        second = following[0]
        if second.input[0] != tensor or second.input[1] not in constants:
            continue
        if any(len(users[name]) > 1 for name in (*first.input[1:], second.input[1])):  # weights that others use too
            continue
        groups, depthwise = _groups(second), constants[second.input[1]].shape[1] == 1
        if groups == 1 or (depthwise and groups == constants[first.input[1]].shape[0]):
            found.append(Link(first.name, second.name, tensor, groups > 1))
    return tuple(found)


def equalised(core: onnx.ModelProto, batches: Sequence[npt.NDArray[np.float32]]) -> onnx.ModelProto:
    """Return a network that answers the same on these pictures, with channels of like ranges.

    Args:
        core: Float, with named nodes.
        batches: Calibration pictures, (N, 3, S, S) float32.
    """
    model = onnx.ModelProto()
    model.CopyFrom(core)
    links = links_of(core)
    if not links:
        return model
    peaks = _peaks(core, [link.tensor for link in links], batches)
    weights = {name: value.copy() for name, value in weights_by_name(core).items()}
    nodes = {node.name: node for node in model.graph.node}
    for link, peak in zip(links, peaks, strict=True):
        scale = _scales(peak, power=1.0 if link.depthwise else 0.5)
        first, second = nodes[link.first], nodes[link.second]
        weights[first.input[1]] *= scale[:, None, None, None]
        if len(first.input) > 2:
            weights[first.input[2]] *= scale
        weights[second.input[1]] /= scale[:, None, None, None] if link.depthwise else scale[None, :, None, None]
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return model


def _scales(peak: npt.NDArray[np.float64], *, power: float) -> npt.NDArray[np.float32]:
    """At least 1, so that what a Clip lets through stays below its upper end."""
    top = float(peak.max())
    if top <= 0:
        return np.ones(len(peak), dtype=np.float32)
    return np.minimum((top / np.maximum(peak, top * 1e-6)) ** power, _MOST).astype(np.float32)


def _peaks(
    core: onnx.ModelProto, tensors: Sequence[str], batches: Sequence[npt.NDArray[np.float32]]
) -> list[npt.NDArray[np.float64]]:
    """Return the largest absolute value of each channel, (C,) a tensor."""
    session = open_session(with_outputs(core, tensors))
    found: list[npt.NDArray[np.float64]] = []
    for pixels in batches:
        values = session.run(list(tensors), {PIXELS: pixels})
        here = [np.abs(v).max(axis=(0, 2, 3)).astype(np.float64) for v in values]
        found = [np.maximum(a, b) for a, b in zip(found, here, strict=True)] if found else here
    return found


def _groups(node: onnx.NodeProto) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)


def _from_zero(node: onnx.NodeProto, constants: dict[str, npt.NDArray[np.float32]]) -> bool:
    if node.op_type == "Relu":
        return True
    low = node.input[1] if len(node.input) > 1 else ""
    return low in constants and float(constants[low]) == 0.0
