"""What TensorRT accepts of an ONNX graph, as a table, and a check of a graph against it.

The table is that of the ONNX parser of TensorRT 10.15 (onnx-tensorrt, docs/operators.md: "Supported ONNX Operators":
operators, types and restrictions). It is the parser's own promise: nothing was run on a GPU here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

__all__ = ["OPERATORS", "OPSETS", "SOURCE", "TENSORRT", "Problem", "find_problems"]

TENSORRT = "10.15"
SOURCE = "onnx-tensorrt docs/operators.md, TensorRT 10.15"
OPSETS = (9, 24)

_OPERATORS = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BlackmanWindow
Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DeformConv
DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather
GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
GroupNormalization GRU HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If ImageScaler
InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LRN LSTM
LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression
NonZero Not OneHot Or Pad ParametricSoftplus Pow PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform
RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RMSNormalization RNN RoiAlign
RotaryEmbedding Round STFT ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh
Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh TensorScatter ThresholdedRelu
Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
OPERATORS = frozenset(_OPERATORS.split())

_INPUT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8)
_QUANTIZED = (TensorProto.INT8, TensorProto.INT4, TensorProto.FLOAT8E4M3FN)
_COORDINATES = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")


@dataclass(frozen=True)
class Problem:
    """Something in a graph that TensorRT does not accept.

    Attributes:
        operator: Its type, or ``opset`` and ``input`` for what is of the whole graph.
        reason: Which limit it breaks.
        nodes: How many nodes.
        example: Name of the first one.
    """

    operator: str
    reason: str
    nodes: int
    example: str


def find_problems(model: onnx.ModelProto) -> tuple[Problem, ...]:
    """Check a graph against the table; an empty result means that every limit of the table is kept.

    Args:
        model: An ONNX model; its inputs have types.
    """
    constants = {t.name: t for t in model.graph.initializer}
    found: list[tuple[str, str, str]] = []
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        found.append(("opset", f"opset {opset} is not within {OPSETS[0]} to {OPSETS[1]}", model.graph.name))
    for value in model.graph.input:
        kind = value.type.tensor_type.elem_type
        if value.name not in constants and kind not in _INPUT_TYPES:
            found.append(("input", f"type {TensorProto.DataType.Name(kind)} is not accepted", value.name))
    for node in model.graph.node:
        where = node.name or (node.output[0] if node.output else "")
        if node.domain not in ("", "ai.onnx"):
            found.append((node.op_type, f"operators of the domain {node.domain} are not known", where))
        elif node.op_type not in OPERATORS:
            found.append((node.op_type, "the operator is not supported", where))
        elif reason := _RULES.get(node.op_type, _no_rule)(node, constants):
            found.append((node.op_type, reason, where))
    counts = Counter((operator, reason) for operator, reason, _ in found)
    first = {(operator, reason): where for operator, reason, where in reversed(found)}
    return tuple(Problem(operator, reason, n, first[operator, reason]) for (operator, reason), n in counts.items())


Rule = Callable[[onnx.NodeProto, Mapping[str, TensorProto]], str]


def _no_rule(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> str:
    return ""


def _attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    for entry in node.attribute:
        if entry.name == name:
            value = onnx.helper.get_attribute_value(entry)
            return value.decode() if isinstance(value, bytes) else value
    return default


def _resize(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> str:
    if _attribute(node, "antialias", 0):
        return "antialiasing is not supported"
    if _attribute(node, "mode", "nearest") not in ("nearest", "linear"):
        return "only the modes nearest and linear are supported"
    if _attribute(node, "coordinate_transformation_mode", "half_pixel") not in _COORDINATES:
        return "the coordinate transformation is not supported"
    return ""


def _quantize(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> str:
    if len(node.input) < 3 or not node.input[2]:
        return "" if node.op_type == "DequantizeLinear" else "without a zero point the type is uint8; int8 is accepted"
    zero = constants.get(node.input[2])
    if zero is None:
        return "the zero point is not a constant"
    if zero.data_type not in _QUANTIZED:
        return f"type {TensorProto.DataType.Name(zero.data_type)} is not accepted, but int8 is"
    if np.any(numpy_helper.to_array(zero).astype(np.float32) != 0):
        return "the zero point is not 0"
    return ""


def _pool(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> str:
    shape, dilations = _attribute(node, "kernel_shape", []), _attribute(node, "dilations", [])
    if isinstance(shape, list) and len(shape) not in (0, 2, 3):
        return "only 2D and 3D pooling is supported"
    if isinstance(dilations, list) and any(d != 1 for d in dilations):
        return "dilations are not supported"
    return "the output Indices is not supported" if len(node.output) > 1 and node.output[1] else ""


def _constant_axes(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> str:
    if len(node.input) > 1 and node.input[1] and node.input[1] not in constants:
        return "axes are not a constant"
    return ""


_RULES: Mapping[str, Rule] = {
    "Resize": _resize,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _quantize,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Squeeze": _constant_axes,
    "Unsqueeze": _constant_axes,
    **{f"Reduce{kind}": _constant_axes for kind in ("Max", "Mean", "Min", "Prod", "Sum", "SumSquare", "L1", "L2")},
}
