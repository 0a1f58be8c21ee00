"""An ONNX graph as a torch module whose tensors are rounded to 8 bits on the way, with gradients straight through.

The rounding sits exactly where the quantized graph has it, because the module is made of that graph's own tensors; and
batch norms are folded into the convolutions already, as they will be in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from autodl_ray.export.graph import LOGITS, PIXELS
from autodl_ray.export.int8.calibration import Range
from autodl_ray.export.int8.layers import Layer, layers_of

__all__ = ["GraphNetwork", "UnknownOperator", "fake_quantized", "fake_weight"]


class UnknownOperator(ValueError):
    """The graph has an operator that this module does not know."""


def fake_quantized(x: Tensor, span: Range) -> Tensor:
    """Round to 256 steps over a range; the gradient passes where the value lies within (Bengio et al., 2013)."""
    low, high = min(0.0, span[0]), max(0.0, span[1])
    step = max(high - low, 1e-12) / 255.0
    zero = min(255, max(0, round(-low / step)))
    return torch.fake_quantize_per_tensor_affine(x, step, zero, 0, 255)


def fake_weight(weight: Tensor, channel_axis: int) -> Tensor:
    """Round to 255 symmetric steps with a scale for each output channel, which follows the weights."""
    axes = [i for i in range(weight.ndim) if i != channel_axis]
    scale = (weight.detach().abs().amax(dim=axes) / 127.0).clamp(min=1e-12)
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zeros, channel_axis, -127, 127)


class GraphNetwork(nn.Module):
    """(N, 3, S, S) float32 → logits (N, C), by the nodes of an ONNX graph.

    Args:
        core: Float, with named nodes.
        ranges: Tensor → range, for the tensors that are rounded; the weights of ``layers`` are rounded as well.
        in_float: Names of layers whose weights stay in float.

    Raises:
        UnknownOperator: The graph has an operator that is not known here; its name is in the message.
    """

    def __init__(self, core: onnx.ModelProto, ranges: Mapping[str, Range], *, in_float: tuple[str, ...] = ()) -> None:
        super().__init__()
        unknown = sorted({node.op_type for node in core.graph.node} - set(_OPERATORS))
        if unknown:
            raise UnknownOperator(", ".join(unknown))
        self._nodes = list(core.graph.node)
        self._ranges = dict(ranges)
        self._layers = {layer.weight: layer for layer in layers_of(core) if layer.name not in in_float}
        trained = {name for layer in layers_of(core) for name in (layer.weight, layer.bias) if name}
        self._constants: dict[str, Tensor] = {}
        self._names: dict[str, str] = {}
        for tensor in core.graph.initializer:
            value = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
            if tensor.name in trained:
                key = f"w{len(self._names)}"
                self._names[tensor.name] = key
                self.register_parameter(key, nn.Parameter(value))
            else:
                self._constants[tensor.name] = value

    def weights(self) -> dict[str, Tensor]:
        """Return the trained constants by their names in the graph."""
        return {name: cast(Tensor, getattr(self, key)) for name, key in self._names.items()}

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels to logits."""
        values: dict[str, Tensor] = {PIXELS: self._rounded(PIXELS, pixels)}
        for node in self._nodes:
            inputs = [self._input(name, values) for name in node.input]
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            result = _OPERATORS[node.op_type](inputs, attributes)
            values[node.output[0]] = self._rounded(node.output[0], result)
        return values[LOGITS]

    def _input(self, name: str, values: Mapping[str, Tensor]) -> Tensor | None:
        if not name:
            return None
        if name in values:
            return values[name]
        if name in self._constants:
            return self._constants[name]
        weight = cast(Tensor, getattr(self, self._names[name]))
        layer: Layer | None = self._layers.get(name)
        return fake_weight(weight, layer.channel_axis) if layer is not None else weight

    def _rounded(self, name: str, value: Tensor) -> Tensor:
        span = self._ranges.get(name)
        return fake_quantized(value.float(), span) if span is not None and value.is_floating_point() else value


Inputs = list[Any]
Attributes = Mapping[str, Any]


def _conv(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, weight, bias = (*inputs, None)[:3]
    rank = weight.ndim - 2
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise UnknownOperator("Conv with auto_pad")
    x, pads = _padded(x, list(attributes.get("pads", [0] * 2 * rank)), 0.0)
    return F.conv2d(
        x,
        weight,
        bias,
        stride=tuple(attributes.get("strides", [1] * rank)),
        padding=pads,
        dilation=tuple(attributes.get("dilations", [1] * rank)),
        groups=int(attributes.get("group", 1)),
    )


def _padded(x: Tensor, pads: list[int], value: float) -> tuple[Tensor, tuple[int, int]]:
    """Pad here where the two sides differ; else leave it to the operator."""
    top, left, bottom, right = pads
    if (top, left) == (bottom, right):
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=value), (0, 0)


def _max_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, pads = _padded(inputs[0], list(attributes.get("pads", [0, 0, 0, 0])), float("-inf"))
    kernel, strides = tuple(attributes["kernel_shape"]), tuple(attributes.get("strides", [1, 1]))
    return F.max_pool2d(x, kernel, strides, pads, ceil_mode=bool(attributes.get("ceil_mode", 0)))


def _average_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    if (top, left) != (bottom, right):
        raise UnknownOperator("AveragePool with uneven pads")
    return F.avg_pool2d(
        inputs[0],
        tuple(attributes["kernel_shape"]),
        tuple(attributes.get("strides", [1, 1])),
        (top, left),
        bool(attributes.get("ceil_mode", 0)),
        bool(attributes.get("count_include_pad", 0)),
    )


def _gemm(inputs: Inputs, attributes: Attributes) -> Tensor:
    a = inputs[0].T if attributes.get("transA", 0) else inputs[0]
    b = inputs[1].T if attributes.get("transB", 0) else inputs[1]
    product = float(attributes.get("alpha", 1.0)) * (a @ b)
    return cast(Tensor, product if len(inputs) < 3 else product + float(attributes.get("beta", 1.0)) * inputs[2])


def _clip(inputs: Inputs, attributes: Attributes) -> Tensor:
    low, high = (*inputs[1:], None, None)[:2]
    return torch.clamp(inputs[0], None if low is None else float(low), None if high is None else float(high))


def _hard_sigmoid(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.clamp(inputs[0] * float(attributes.get("alpha", 0.2)) + float(attributes.get("beta", 0.5)), 0.0, 1.0)


def _reduce_mean(inputs: Inputs, attributes: Attributes) -> Tensor:
    axes = attributes["axes"] if len(inputs) < 2 else inputs[1].tolist()
    return cast(Tensor, inputs[0].mean(dim=list(axes), keepdim=bool(attributes.get("keepdims", 1))))


def _reshape(inputs: Inputs, attributes: Attributes) -> Tensor:
    shape = [int(inputs[0].shape[i]) if size == 0 else int(size) for i, size in enumerate(inputs[1].tolist())]
    return cast(Tensor, inputs[0].reshape(shape))


_OPERATORS: Mapping[str, Callable[[Inputs, Attributes], Tensor]] = {
    "Add": lambda i, a: cast(Tensor, i[0] + i[1]),
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Concat": lambda i, a: torch.cat(i, dim=int(a["axis"])),
    "Conv": _conv,
    "Flatten": lambda i, a: cast(Tensor, i[0].flatten(int(a.get("axis", 1)))),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda i, a: cast(Tensor, i[0].mean(dim=(2, 3), keepdim=True)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda i, a: F.hardswish(i[0]),
    "Identity": lambda i, a: cast(Tensor, i[0]),
    "MatMul": lambda i, a: cast(Tensor, i[0] @ i[1]),
    "MaxPool": _max_pool,
    "Mul": lambda i, a: cast(Tensor, i[0] * i[1]),
    "ReduceMean": _reduce_mean,
    "Relu": lambda i, a: torch.relu(i[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda i, a: torch.sigmoid(i[0]),
}
