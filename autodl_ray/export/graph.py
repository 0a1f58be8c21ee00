"""The preprocessing as an ONNX graph, and its merger with a network into one that takes raw pictures.

The graph does what :func:`autodl_ray.models.preprocess.preprocess_tensor` does. ``Resize`` has ``exclude_outside``
because without it onnxruntime counts weights outside the picture (up to 19 of 255 off at the edges).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from autodl_ray.images import Preprocess

__all__ = [
    "INPUT",
    "LOGITS",
    "OPSET",
    "OUTPUT",
    "PIXELS",
    "model_of",
    "preprocess_model",
    "with_outputs",
    "with_preprocess",
]

INPUT, PIXELS, LOGITS, OUTPUT = "image", "pixels", "logits", "probabilities"
OPSET = 18
_IR_VERSION = 10  # read by onnxruntime 1.18 and later
_BATCH = "N"


@dataclass
class _Nodes:
    """Nodes and constants in the making; names start with ``preprocess/`` so that none meets one of the network."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: np.ndarray | list[int] | int) -> str:
        """Add a constant; whole numbers are int64."""
        array = value if isinstance(value, np.ndarray) else np.asarray(value, dtype=np.int64).reshape(-1)
        self.constants.append(numpy_helper.from_array(array, f"preprocess/{name}"))
        return f"preprocess/{name}"

    def add(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add a node with one output and return its name."""
        output = name if name == PIXELS else f"preprocess/{name}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"preprocess/{name}", **attributes))
        return output


def preprocess_model(preprocess: Preprocess) -> onnx.ModelProto:
    """Return a model from ``image`` uint8 (N, H, W, 3) to ``pixels`` float32 (N, 3, S, S), normalised."""
    nodes = _preprocess_nodes(preprocess)
    pixels = helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, [_BATCH, 3, preprocess.size, preprocess.size])
    graph = helper.make_graph(nodes.nodes, "preprocess", [_image_info()], [pixels], nodes.constants)
    return model_of(graph, [helper.make_opsetid("", OPSET)])


def with_preprocess(core: onnx.ModelProto, preprocess: Preprocess, num_classes: int) -> onnx.ModelProto:
    """Put the preprocessing before and a softmax behind a network.

    Args:
        core: A model from ``pixels`` float32 (N, 3, S, S) to ``logits`` float32 (N, C).
        preprocess: What ``pixels`` are of a picture.
        num_classes: C.

    Returns:
        A model from ``image`` uint8 (N, H, W, 3), RGB, any size, to ``probabilities`` float32 (N, C).
    """
    nodes = _preprocess_nodes(preprocess)
    softmax = helper.make_node("Softmax", [LOGITS], [OUTPUT], name="softmax", axis=1)
    graph = helper.make_graph(
        [*nodes.nodes, *core.graph.node, softmax],
        "classifier",
        [_image_info()],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [_BATCH, num_classes])],
        [*nodes.constants, *core.graph.initializer],
    )
    return model_of(graph, list(core.opset_import))


def model_of(graph: onnx.GraphProto, opsets: list[onnx.OperatorSetIdProto]) -> onnx.ModelProto:
    """Wrap a graph and check it."""
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="autodl_ray")
    onnx.checker.check_model(model)
    return model


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> bytes:
    """Return the model with these float tensors as its outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {o.name: o for o in copy.graph.output}
    del copy.graph.output[:]
    made = {name for node in copy.graph.node for name in node.output}
    for name in names:
        if name in made:
            info = known.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            copy.graph.output.append(info)
    if OUTPUT in known and OUTPUT not in names:
        copy.graph.output.append(known[OUTPUT])
    return bytes(copy.SerializeToString())


def _image_info() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [_BATCH, "H", "W", 3])


def _preprocess_nodes(preprocess: Preprocess) -> _Nodes:
    nodes = _Nodes()
    planes = nodes.add("Transpose", [INPUT], "planes", perm=[0, 3, 1, 2])
    values = nodes.add("Cast", [planes], "values", to=TensorProto.FLOAT)
    if preprocess.fit == "stretch":
        sizes = nodes.constant("sizes", [preprocess.size, preprocess.size])
        _normalise(nodes, _resize(nodes, values, sizes), preprocess, PIXELS)
        return nodes
    sizes = _sizes(nodes, preprocess)
    scaled = _resize(nodes, values, sizes)
    if preprocess.fit == "crop":
        _normalise(nodes, _centre(nodes, scaled, sizes, preprocess.size), preprocess, PIXELS)
    else:
        _pad(nodes, _normalise(nodes, scaled, preprocess, "normalised"), sizes, preprocess.size)
    return nodes


def _resize(nodes: _Nodes, values: str, sizes: str) -> str:
    """Scale to ``sizes`` (2,).

    All four sizes are given, not two and ``axes``: the transpose optimizer of onnxruntime 1.32 mixes those up in a
    graph with QuantizeLinear nodes.
    """
    kept = nodes.add("Shape", [values], "batch_channels", start=0, end=2)
    all_sizes = nodes.add("Concat", [kept, sizes], "all_sizes", axis=0)
    return nodes.add(
        "Resize",
        [values, "", "", all_sizes],
        "scaled",
        mode="linear",
        coordinate_transformation_mode="half_pixel",
        antialias=1,
        exclude_outside=1,
    )


def _normalise(nodes: _Nodes, values: str, preprocess: Preprocess, name: str) -> str:
    """(x / 255 - mean) / std as a batch norm whose statistics are 0 and 1.

    One pass instead of a product and a sum; and in a graph with QuantizeLinear nodes onnxruntime would turn those two
    to a channels-last layout, where they are ten times slower: a fifth of all the time of an INT8 network.
    """
    mean, std = (np.asarray(v, dtype=np.float64) for v in (preprocess.mean, preprocess.std))
    factor = nodes.constant("factor", (1.0 / (255.0 * std)).astype(np.float32))
    shift = nodes.constant("shift", (-mean / std).astype(np.float32))
    zeros = nodes.constant("zeros", np.zeros(3, dtype=np.float32))
    ones = nodes.constant("ones", np.ones(3, dtype=np.float32))
    return nodes.add("BatchNormalization", [values, factor, shift, zeros, ones], name, epsilon=0.0)


def _sizes(nodes: _Nodes, preprocess: Preprocess) -> str:
    """(2,) int64: max(1, (side · S + m // 2) // m) for H and W, where m is the side that becomes S."""
    extent = nodes.add("Shape", [INPUT], "height_width", start=1, end=3)
    fixed = nodes.add("ReduceMin" if preprocess.fit == "crop" else "ReduceMax", [extent], "fixed", keepdims=1)
    half = nodes.add("Div", [fixed, nodes.constant("two", 2)], "half_fixed")
    product = nodes.add("Mul", [extent, nodes.constant("side", preprocess.size)], "extent_times_side")
    rounded = nodes.add("Div", [nodes.add("Add", [product, half], "half_up"), fixed], "rounded")
    return nodes.add("Max", [rounded, nodes.constant("one", 1)], "sizes")


def _centre(nodes: _Nodes, values: str, sizes: str, size: int) -> str:
    side = nodes.constant("centre_side", size)
    start = nodes.add("Div", [nodes.add("Sub", [sizes, side], "surplus"), nodes.constant("half", 2)], "start")
    end = nodes.add("Add", [start, side], "end")
    return nodes.add("Slice", [values, start, end, nodes.constant("axes", [2, 3])], "centre")


def _pad(nodes: _Nodes, values: str, sizes: str, size: int) -> None:
    """Fill with 0, which is the mean after normalisation; all axes are given for the reason in :func:`_resize`."""
    rest = nodes.add("Sub", [nodes.constant("padded_side", size), sizes], "rest")
    before = nodes.add("Div", [rest, nodes.constant("half", 2)], "before")
    none = nodes.constant("batch_channels_pads", [0, 0])
    pads = nodes.add("Concat", [none, before, none, nodes.add("Sub", [rest, before], "after")], "pads", axis=0)
    zero = nodes.constant("zero", np.asarray(0.0, dtype=np.float32))
    nodes.add("Pad", [values, pads, zero], PIXELS, mode="constant")
