"""The layers of a network that can be in 8 bits, and graphs in which single ones of them are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from autodl_ray.export.int8.calibration import Range

__all__ = [
    "Layer",
    "alone",
    "fake_pair",
    "in_8_bits",
    "layers_of",
    "linear_share",
    "named",
    "rounded_weight",
    "weights_by_name",
]

_WEIGHTED = ("Conv", "Gemm", "MatMul")

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """A layer with constant weights.

    Attributes:
        name: Of the node.
        op: ``Conv``, ``Gemm`` or ``MatMul``.
        data: Tensor that it takes.
        weight: Name of its weights.
        bias: Name of its bias; empty where it has none.
        output: Tensor that it gives.
        channel_axis: Axis of the weights that counts the output channels.
    """

    name: str
    op: str
    data: str
    weight: str
    bias: str
    output: str
    channel_axis: int


def named(core: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose nodes all have names of their own."""
    model = onnx.ModelProto()
    model.CopyFrom(core)
    seen: set[str] = set()
    for position, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{position}"
        seen.add(node.name)
    return model


def weights_by_name(core: onnx.ModelProto) -> dict[str, Weights]:
    """Return the float constants of a graph."""
    return {t.name: numpy_helper.to_array(t) for t in core.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}


def layers_of(core: onnx.ModelProto) -> tuple[Layer, ...]:
    """Return the layers with constant weights, in the order of the graph."""
    constants = {t.name for t in core.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    return tuple(
        Layer(
            node.name,
            node.op_type,
            node.input[0],
            node.input[1],
            node.input[2] if len(node.input) > 2 else "",
            node.output[0],
            _channel_axis(node),
        )
        for node in core.graph.node
        if node.op_type in _WEIGHTED and node.input[1] in constants
    )


def _channel_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Conv":
        return 0
    transposed = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if transposed else 1


def linear_share(core: onnx.ModelProto) -> float:
    """Return the share of the weights that belongs to linear layers; 0 where there are no weights."""
    weights = weights_by_name(core)
    sizes = [(layer.op != "Conv", weights[layer.weight].size) for layer in layers_of(core)]
    total = sum(size for _, size in sizes)
    return sum(size for linear, size in sizes if linear) / total if total else 0.0


def in_8_bits(weight: Weights, channel_axis: int) -> tuple[npt.NDArray[np.int8], Weights]:
    """Return the weights as symmetric 8 bits, and the scale of each output channel (C,)."""
    scale = np.abs(weight).max(axis=_others(weight, channel_axis)) / 127.0
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    steps = np.rint(weight / np.expand_dims(scale, _others(weight, channel_axis)))
    return np.clip(steps, -127, 127).astype(np.int8), scale


def rounded_weight(weight: Weights, channel_axis: int) -> Weights:
    """Return the weights as 8 bits hold them."""
    whole, scale = in_8_bits(weight, channel_axis)
    return (whole * np.expand_dims(scale, _others(weight, channel_axis))).astype(np.float32)


def _others(weight: Weights, channel_axis: int) -> tuple[int, ...]:
    return tuple(i for i in range(weight.ndim) if i != channel_axis)


def fake_pair(tensor: str, span: Range, output: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return ``QuantizeLinear`` and ``DequantizeLinear`` from ``tensor`` to ``output``, with their constants."""
    low, high = min(0.0, span[0]), max(0.0, span[1])
    step = np.float32(max(high - low, 1e-12) / 255.0)
    zero = np.uint8(np.clip(round(-low / float(step)), 0, 255))
    names = [f"{output}/scale", f"{output}/zero"]
    nodes = [
        helper.make_node("QuantizeLinear", [tensor, *names], [f"{output}/8"], name=f"{output}/quantize"),
        helper.make_node("DequantizeLinear", [f"{output}/8", *names], [output], name=f"{output}/dequantize"),
    ]
    return nodes, [
        numpy_helper.from_array(np.asarray(step), names[0]),
        numpy_helper.from_array(np.asarray(zero), names[1]),
    ]


def alone(core: onnx.ModelProto, layer: Layer, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Return the network with one layer in 8 bits: its weights, what it takes, and what it gives are rounded."""
    model = onnx.ModelProto()
    model.CopyFrom(core)
    weight = rounded_weight(weights_by_name(core)[layer.weight], layer.channel_axis)
    model.graph.initializer.append(numpy_helper.from_array(weight, f"{layer.name}/weight8"))
    position = next(i for i, node in enumerate(model.graph.node) if node.name == layer.name)
    node = model.graph.node[position]
    before, constants = fake_pair(layer.data, ranges[layer.data], f"{layer.name}/in8")
    after, more = fake_pair(f"{layer.name}/raw", ranges[layer.output], layer.output)
    node.input[0], node.input[1], node.output[0] = f"{layer.name}/in8", f"{layer.name}/weight8", f"{layer.name}/raw"
    model.graph.initializer.extend([*constants, *more])
    nodes = [*model.graph.node[:position], *before, node, *after, *model.graph.node[position + 1 :]]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model
