"""Bias correction: 8 bits shift the mean of what a layer gives; the shift is measured and taken away.

Each layer is measured by itself, with its input as it is in float (Nagel et al., 2019, section 4.2, by pictures
instead of by assumption): the corrections then do not depend on each other, and one pass finds all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from autodl_ray.export.graph import PIXELS
from autodl_ray.export.int8.calibration import Range
from autodl_ray.export.int8.layers import Layer, fake_pair, layers_of, rounded_weight, weights_by_name
from autodl_ray.models.predictor import open_session

__all__ = ["corrected"]


def corrected(
    core: onnx.ModelProto, ranges: Mapping[str, Range], batches: Sequence[npt.NDArray[np.float32]]
) -> onnx.ModelProto:
    """Return the network with biases that make up for what 8 bits do to the mean of each output channel.

    Args:
        core: Float, with named nodes.
        ranges: Tensor → range of the 8 bits.
        batches: Calibration pictures, (N, 3, S, S) float32.
    """
    layers = [layer for layer in layers_of(core) if layer.op in ("Conv", "Gemm") and layer.data in ranges]
    shifts = _shifts(core, layers, ranges, batches)
    model = onnx.ModelProto()
    model.CopyFrom(core)
    weights = weights_by_name(core)
    nodes = {node.name: node for node in model.graph.node}
    for layer in layers:
        bias = weights[layer.bias] if layer.bias else np.zeros_like(shifts[layer.name])
        name = f"{layer.name}/corrected_bias"
        model.graph.initializer.append(numpy_helper.from_array((bias - shifts[layer.name]).astype(np.float32), name))
        node = nodes[layer.name]
        del node.input[2:]
        node.input.append(name)
    used = {name for node in model.graph.node for name in node.input}
    kept = [TensorProto.FromString(t.SerializeToString()) for t in model.graph.initializer if t.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def _shifts(
    core: onnx.ModelProto,
    layers: Sequence[Layer],
    ranges: Mapping[str, Range],
    batches: Sequence[npt.NDArray[np.float32]],
) -> dict[str, npt.NDArray[np.float64]]:
    session = open_session(_with_rounded_twins(core, layers, ranges).SerializeToString())
    names = [f"{layer.name}/shift" for layer in layers]
    total = sum(len(pixels) for pixels in batches)
    sums = [np.zeros(1)] * len(names)
    for pixels in batches:
        found = session.run(names, {PIXELS: pixels})
        sums = [s + len(pixels) / total * f.astype(np.float64) for s, f in zip(sums, found, strict=True)]
    return {layer.name: s for layer, s in zip(layers, sums, strict=True)}


def _with_rounded_twins(core: onnx.ModelProto, layers: Sequence[Layer], ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Put a rounded twin beside each layer; the outputs are the mean differences a channel."""
    model = onnx.ModelProto()
    model.CopyFrom(core)
    weights = weights_by_name(core)
    nodes = {node.name: node for node in core.graph.node}
    for layer in layers:
        twin = onnx.NodeProto()
        twin.CopyFrom(nodes[layer.name])
        before, constants = fake_pair(layer.data, ranges[layer.data], f"{layer.name}/twin_in")
        twin.name, twin.output[0] = f"{layer.name}/twin", f"{layer.name}/twin_out"
        twin.input[0], twin.input[1] = f"{layer.name}/twin_in", f"{layer.name}/twin_weight"
        rounded = rounded_weight(weights[layer.weight], layer.channel_axis)
        axes = [0, 2, 3] if layer.op == "Conv" else [0]
        model.graph.initializer.extend(
            [
                *constants,
                numpy_helper.from_array(rounded, f"{layer.name}/twin_weight"),
                numpy_helper.from_array(np.asarray(axes, dtype=np.int64), f"{layer.name}/axes"),
            ]
        )
        difference = helper.make_node(
            "Sub", [f"{layer.name}/twin_out", layer.output], [f"{layer.name}/difference"], name=f"{layer.name}/sub"
        )
        mean = helper.make_node(
            "ReduceMean",
            [f"{layer.name}/difference", f"{layer.name}/axes"],
            [f"{layer.name}/shift"],
            name=f"{layer.name}/mean",
            keepdims=0,
        )
        model.graph.node.extend([*before, twin, difference, mean])
        model.graph.output.append(helper.make_tensor_value_info(f"{layer.name}/shift", onnx.TensorProto.FLOAT, None))
    return model
