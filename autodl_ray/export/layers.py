"""Which layer of an exported network first differs: its intermediate values beside those of the network."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from autodl_ray.export.graph import INPUT, LOGITS, PIXELS, with_outputs
from autodl_ray.images import ImageArray, Preprocess
from autodl_ray.models.predictor import open_session
from autodl_ray.models.preprocess import preprocess_tensor

__all__ = [
    "Layer",
    "explain",
    "explain_core",
    "explain_onnx",
    "first_difference",
    "layer_outputs",
    "watched",
]

_TOLERANCE = 1e-3
"""Of the largest value of a layer; rounding alone gives some 1e-5."""

Array = npt.NDArray[Any]
_AGAIN = re.compile(r"_\d+$")  # `relu_1` is the second call of `relu`
_SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's dynamo exporter writes the modules of a node


@dataclass(frozen=True)
class Layer:
    """What one module made of one input.

    Attributes:
        path: As in ``model.named_modules()``.
        kind: Name of its class.
        values: What it returned.
        folded: Of the modules behind it that an exporter may have folded into it (norms, activations), in order.
    """

    path: str
    kind: str
    values: Array
    folded: tuple[Array, ...]


def layer_outputs(model: nn.Module, pixels: Tensor) -> list[Layer]:
    """Run the network and return what its modules without children made, in the order of the calls.

    Args:
        model: In evaluation mode.
        pixels: (N, 3, S, S) float32.
    """
    calls: list[tuple[str, nn.Module, Tensor, Tensor, Array]] = []

    def watch(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and inputs and isinstance(inputs[0], Tensor):
                calls.append(
                    (path, module, inputs[0], output, output.numpy().copy())
                )  # an activation may work in place

        return note

    leaves = [(path, m) for path, m in model.named_modules() if path and not any(True for _ in m.children())]
    handles = [module.register_forward_hook(watch(path)) for path, module in leaves]
    try:
        with torch.no_grad():
            model(pixels)
    finally:
        for handle in handles:
            handle.remove()
    layers: dict[str, Layer] = {}
    for position, (path, module, _, output, values) in enumerate(calls):
        folded, last = [], output
        for _, _, inputs, made, behind in calls[position + 1 : position + 4]:
            if inputs is not last:
                break
            folded.append(behind)
            last = made
        layers.pop(path, None)  # of a module that is called again, the last call is the one that a graph shows
        layers[path] = Layer(path, type(module).__name__, values, tuple(folded))
    return list(layers.values())


def first_difference(layers: list[Layer], seen: Mapping[str, Array]) -> str:
    """Name the first layer whose values differ.

    Args:
        layers: Of the network, from :func:`layer_outputs`.
        seen: Path of a module → its values in the exported network. A module that an exporter folded another one into
            may hold the values behind that one.

    Returns:
        ``backbone.conv1 (Conv2d): differs by …``; where none is over the tolerance, the one that differs most.
    """
    compared = [(layer, _error(layer, seen[layer.path])) for layer in layers if layer.path in seen]
    if not compared:
        return "no layer of the exported network could be matched with one of the network"
    for position, (layer, error) in enumerate(compared):
        if error > _TOLERANCE:
            agree = f"; the {position} layers before it agree" if position else ""
            return f"{layer.path} ({layer.kind}): differs by {error:.2g} of its largest value{agree}"
    layer, error = max(compared, key=lambda pair: pair[1])
    return f"none by itself; {layer.path} ({layer.kind}) differs most, by {error:.2g} of its largest value"


def _error(layer: Layer, seen: Array) -> float:
    return min(_relative(wanted, seen) for wanted in (layer.values, *layer.folded))


def _relative(wanted: Array, seen: Array) -> float:
    if wanted.shape != seen.shape:
        return float("inf")
    difference = np.nan_to_num(np.abs(wanted.astype(np.float64) - seen), nan=np.inf)
    return float(difference.max() / max(1e-6, float(np.abs(wanted).max())))


def watched(core: onnx.ModelProto, model: nn.Module) -> dict[str, str]:
    """Return path of a module → the tensor of the graph that holds its values (the last one made in it)."""
    paths = {path for path, _ in model.named_modules() if path}
    found: dict[str, str] = {}
    for node in core.graph.node:
        path = _path_of(node, paths)
        if path and node.output:
            found[path] = node.output[0]
    return found


def _path_of(node: onnx.NodeProto, paths: set[str]) -> str:
    """Return the module that a node was made in: by metadata (dynamo), else by the scope in its names (trace)."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            return next((s for s in reversed(ast.literal_eval(entry.value)) if s in paths), "")
    name = node.name or (node.output[0] if node.output else "")
    path, before = "", ""
    for part in name.strip("/").split("/")[:-1]:
        # The child `0` of the Sequential `features` is written as `features/features.0`.
        own = part.removeprefix(f"{before}.") if before else part
        joined = f"{path}.{own}" if path else own
        if joined not in paths:
            joined = _AGAIN.sub("", joined)
        if joined not in paths:
            break
        path, before = joined, part
    return path


def explain_onnx(model: nn.Module, exported: bytes, picture: ImageArray, preprocess: Preprocess) -> str:
    """Say which layer of a whole exported model (pictures → probabilities) first differs for a picture.

    Args:
        model: The network, in evaluation mode, float32, on the CPU.
        exported: The ONNX model.
        picture: (H, W, 3) uint8.
        preprocess: What the network's input is of a picture.
    """
    graph = onnx.load_from_string(exported)
    tensors = watched(graph, model)
    names = list(dict.fromkeys([PIXELS, *tensors.values(), LOGITS]))
    session = open_session(with_outputs(graph, names))
    values = dict(zip(names, session.run(names, {INPUT: picture[None]}), strict=True))
    return explain(model, {path: values[name] for path, name in tensors.items()}, values[PIXELS], picture, preprocess)


def explain(
    model: nn.Module, seen: Mapping[str, Array], pixels: Array, picture: ImageArray, preprocess: Preprocess
) -> str:
    """Compare the preprocessing first, then layer by layer on pixels that agree."""
    wanted = preprocess_tensor(picture, preprocess)[None]
    error = _relative(wanted, np.asarray(pixels))
    if error > _TOLERANCE:
        return f"the preprocessing: pixels differ by {error:.2g} of the largest"
    return first_difference(layer_outputs(model, torch.from_numpy(wanted)), seen)


def explain_core(model: nn.Module, core: onnx.ModelProto, pixels: Tensor) -> str:
    """Say which layer of a core (pixels → logits) first differs for a batch (N, 3, S, S)."""
    tensors = watched(core, model)
    names = list(dict.fromkeys([*tensors.values(), LOGITS]))
    session = open_session(with_outputs(core, names))
    values = dict(zip(names, session.run(names, {PIXELS: pixels.numpy()}), strict=True))
    return first_difference(layer_outputs(model, pixels), {path: values[name] for path, name in tensors.items()})
