"""A network with 8-bit weights and activations, from ranges that were measured before."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from autodl_ray.export.graph import PIXELS

__all__ = ["quantize_core", "quiet", "with_short_names"]


class _OnePicture:
    """A calibration reader of one batch: onnxruntime insists on a pass of its own, whose ranges are replaced."""

    def __init__(self, pixels: npt.NDArray[np.float32]) -> None:
        self._batches = iter([{PIXELS: pixels}])

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        return next(self._batches, None)


def quantize_core(
    core: onnx.ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    pixels: npt.NDArray[np.float32],
    *,
    in_float: Collection[str] = (),
) -> onnx.ModelProto:
    """Quantize a network statically: QInt8 weights a channel, QUInt8 activations, as QuantizeLinear pairs.

    QUInt8 activations because they are 1.5 times faster on AVX-512 than QInt8 ones (measured on efficientnet_lite0).

    Args:
        core: From ``pixels`` to logits, float32.
        ranges: Tensor name → range of its values.
        pixels: (1, 3, S, S) float32, any picture.
        in_float: Names of nodes that are left as they are.

    Returns:
        The same graph with ``QuantizeLinear`` and ``DequantizeLinear`` around what onnxruntime can do in 8 bits.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    overrides = {
        name: [{"rmin": np.array(low, dtype=np.float32), "rmax": np.array(high, dtype=np.float32)}]
        for name, (low, high) in ranges.items()
    }
    with tempfile.TemporaryDirectory(prefix="autodl-int8-") as folder, quiet():
        path = Path(folder) / "quantized.onnx"
        source = onnx.ModelProto()
        source.CopyFrom(core)
        quantize_static(
            source,
            path,
            _OnePicture(pixels),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=list(in_float),
            extra_options={"TensorQuantOverrides": overrides},
        )
        return _guarded(onnx.load(path), in_float)


def _guarded(model: onnx.ModelProto, in_float: Collection[str]) -> onnx.ModelProto:
    """Put a ``Max`` that changes nothing behind the layers in float.

    onnxruntime 1.32 quantizes a float layer between ``DequantizeLinear`` and ``QuantizeLinear`` by itself when it loads
    the graph (its optimizer WeightBiasQuantization), with one scale for all channels: a depthwise layer that was left
    in float because it is sensitive then lost more than before (0.0127 instead of 0.0006 of divergence).
    """
    if not in_float:
        return model
    lowest = "in_float/lowest"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(np.finfo(np.float32).min), lowest))
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        nodes.append(copy)
        if node.name in in_float:
            copy.output[0] = f"{node.name}/in_float"
            guard = helper.make_node("Max", [copy.output[0], lowest], [node.output[0]], name=f"{node.name}/guard")
            nodes.append(guard)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def with_short_names(core: onnx.ModelProto) -> onnx.ModelProto:
    """Return a core whose tensors and nodes are called ``t1``, ``n1`` …: a tenth of a small INT8 file is names."""
    if any(a.HasField("g") or a.graphs for node in core.graph.node for a in node.attribute):
        return core  # graphs inside of nodes see the names outside
    model = onnx.ModelProto()
    model.CopyFrom(core)
    del model.graph.value_info[:]
    fixed = {value.name for value in (*model.graph.input, *model.graph.output)}
    names: dict[str, str] = {}

    def short(name: str) -> str:
        return name if not name or name in fixed else names.setdefault(name, f"t{len(names)}")

    for tensor in model.graph.initializer:
        tensor.name = short(tensor.name)
    for position, node in enumerate(model.graph.node):
        node.name, node.doc_string = f"n{position}", ""
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Keep onnxruntime's prints, warnings and root log lines (it uses the root logger) away from people."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
