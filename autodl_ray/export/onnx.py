"""A network in torch becomes an ONNX graph from normalised pixels to logits.

Two routes lead there. ``trace`` records one call with a fixed input and lets onnxruntime fold everything that then is
constant (the "same" padding of EfficientNet computes shapes at run time otherwise, which costs 40 % of the speed);
it takes about half a second. ``dynamo`` is the current exporter of torch and takes six. Both give the same operators
and the same speed, so the fast one is tried first; a graph that does not answer like the network is not used.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import onnx
import torch
from torch import nn

from autodl_ray.errors import in_short
from autodl_ray.export.faithful import first_faithful, logit_error
from autodl_ray.export.graph import LOGITS, OPSET, PIXELS, model_of
from autodl_ray.export.layers import explain_core
from autodl_ray.models.predictor import open_session

__all__ = ["ROUTES", "Exporter", "export_core", "frozen_copy"]

Exporter = Literal["trace", "dynamo"]
ROUTES: tuple[Exporter, ...] = ("trace", "dynamo")
_MAX_ERROR = 1e-3
"""Largest accepted difference of a logit, relative to the largest logit (or to 1)."""


def export_core(
    model: nn.Module, image_size: int, *, routes: Sequence[Exporter] = ROUTES
) -> tuple[onnx.ModelProto, Exporter]:
    """Export the network by the first route whose graph answers like it, for one picture and for several.

    Args:
        model: (N, 3, S, S) float32 → logits (N, C); not changed.
        image_size: S, px.
        routes: The ones that are tried, in this order.

    Returns:
        A model from ``pixels`` (N, 3, S, S) to ``logits`` (N, C), both float32, with any N; and the route.

    Raises:
        StageError: Neither route gave a graph that answers like the network.
    """
    frozen = frozen_copy(model)
    ways: dict[Exporter, Callable[[nn.Module, int], onnx.ModelProto]] = {"trace": _by_trace, "dynamo": _by_dynamo}

    def make(route: Exporter) -> onnx.ModelProto:
        with _quiet():
            return ways[route](frozen, image_size)

    def fault(graph: onnx.ModelProto) -> str:
        error, pixels = _largest_error(frozen, graph, image_size)
        if error <= _MAX_ERROR:
            return ""
        return f"logits differ by {error:.2g}; first layer: {_layer(frozen, graph, pixels)}"

    return first_faithful(
        {route: partial(make, route) for route in routes},
        fault,
        what="The network could not be exported to ONNX.",
        accepted=f"logits within {_MAX_ERROR:g} of the network's",
        hint="choose a network of the zoo: see `autodl models`",
    )


def _layer(model: nn.Module, graph: onnx.ModelProto, pixels: torch.Tensor) -> str:
    try:
        return explain_core(model, graph, pixels)
    except Exception as error:  # the explanation must not hide what it explains
        return f"not to be named ({in_short(error)})"


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return a copy on the CPU, in float32, contiguous and in evaluation mode; the network itself is not changed."""
    return copy.deepcopy(model).to("cpu", torch.float32).to(memory_format=torch.contiguous_format).eval()


def _by_trace(model: nn.Module, image_size: int) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, image_size, image_size),),
            buffer,  # type: ignore[arg-type]  # the tracing exporter takes a stream; the annotation is of the other
            dynamo=False,
            input_names=[PIXELS],
            output_names=[LOGITS],
            opset_version=OPSET,
        )
    traced = onnx.load_from_string(buffer.getvalue())
    _drop_empty_inputs(traced)
    return _any_batch(_folded(traced.SerializeToString()))


def _by_dynamo(model: nn.Module, image_size: int) -> onnx.ModelProto:
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 3, image_size, image_size),),
        dynamo=True,
        input_names=[PIXELS],
        output_names=[LOGITS],
        dynamic_shapes=({0: torch.export.Dim("N")},),
        verbose=False,
    )
    assert program is not None
    return _any_batch(program.model_proto)


def _drop_empty_inputs(model: onnx.ModelProto) -> None:
    """Drop optional inputs that are written as trailing "": onnxruntime 1.32 neither fuses nor quantizes such a Pad."""
    for node in model.graph.node:
        while node.input and not node.input[-1]:
            del node.input[-1]


def _folded(model: bytes) -> onnx.ModelProto:
    """Let onnxruntime fold constants, batch norms and pads, by rules that hold for every processor."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="autodl-export-") as folder:
        path = Path(folder) / "folded.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def _any_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Free the batch dimension and drop the shapes and operator sets that no longer say anything."""
    used = {node.domain for node in model.graph.node}
    if used - {"", "ai.onnx"}:
        raise ValueError(f"operators of onnxruntime alone: {sorted(used)}")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    return model_of(model.graph, [o for o in model.opset_import if o.domain == ""])


def _largest_error(model: nn.Module, graph: onnx.ModelProto, image_size: int) -> tuple[float, torch.Tensor]:
    """Compare logits for batches of 1 and 3, relative to the largest (or to 1); return the worst pixels as well."""
    session = open_session(graph.SerializeToString())
    generator = torch.Generator().manual_seed(0)
    worst, pixels_of = -1.0, torch.zeros(0)
    for batch in (1, 3):
        pixels = torch.randn(batch, 3, image_size, image_size, generator=generator)
        with torch.no_grad():
            wanted = model(pixels).numpy()
        seen = session.run([LOGITS], {PIXELS: pixels.numpy()})[0]
        error = logit_error(wanted, seen)
        if error > worst:
            worst, pixels_of = error, pixels
    return worst, pixels_of


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' prints, log lines and deprecation warnings away from people.

    The tracing exporter is deprecated in torch 2.14 and says so; it stays because it is ten times faster, and
    ``dynamo`` takes over by itself where it is gone.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
