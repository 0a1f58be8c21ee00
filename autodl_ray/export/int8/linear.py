"""Two ways for networks of linear layers: ranges of the activations at run time, and 8 bits for the weights alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnx import helper, numpy_helper

from autodl_ray.export.int8.layers import in_8_bits, layers_of, weights_by_name
from autodl_ray.export.int8.quantize import quiet

__all__ = ["dynamic_core", "weights_core"]

_LEAST_WEIGHTS = 1024  # a layer below that is not worth a node


def dynamic_core(core: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with linear layers in 8 bits whose inputs are rounded by their own range at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="autodl-int8-") as folder, quiet():
        before, after = Path(folder) / "float.onnx", Path(folder) / "dynamic.onnx"
        onnx.save(core, before)
        quantize_dynamic(
            before, after, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8
        )
        return onnx.load(after)


def weights_core(core: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with its weights as 8 bits and a scale for each output channel; it computes in float."""
    model = onnx.ModelProto()
    model.CopyFrom(core)
    weights = weights_by_name(core)
    chosen = {
        layer.weight: layer.channel_axis for layer in layers_of(core) if weights[layer.weight].size >= _LEAST_WEIGHTS
    }
    kept = [t for t in model.graph.initializer if t.name not in chosen]
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    opened = []
    for name, axis in chosen.items():
        whole, scale = in_8_bits(weights[name], axis)
        kept += [numpy_helper.from_array(whole, f"{name}/8"), numpy_helper.from_array(scale, f"{name}/scale")]
        opened.append(
            helper.make_node("DequantizeLinear", [f"{name}/8", f"{name}/scale"], [name], name=f"{name}/open", axis=axis)
        )
    copies = [onnx.TensorProto.FromString(t.SerializeToString()) for t in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)
    del model.graph.node[:]
    model.graph.node.extend([*opened, *nodes])
    return model
