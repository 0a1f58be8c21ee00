"""OpenVINO: the ONNX model as OpenVINO's own, with the preprocessing inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from torch import nn

from autodl_ray.errors import StageError
from autodl_ray.export.extras import import_openvino
from autodl_ray.export.graph import PIXELS
from autodl_ray.export.layers import explain, watched
from autodl_ray.images import ImageArray, Preprocess

__all__ = ["MODEL_BIN", "MODEL_XML", "convert", "explain_openvino", "import_openvino", "open_openvino", "to_openvino"]

MODEL_XML, MODEL_BIN = "model.xml", "model.bin"
_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}


def convert(exported: bytes) -> Any:
    """Return the ONNX model (pictures → probabilities) as an ``openvino.Model``.

    OpenVINO 2026.4 reads ONNX's antialiased Resize as one without antialiasing; here it becomes OpenVINO's
    ``bilinear_pillow``, which is the rule of :class:`~autodl_ray.images.Preprocess`.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        StageError: OpenVINO does not read it.
    """
    openvino = import_openvino()
    from openvino import opset13 as ops

    try:
        model = openvino.Core().read_model(exported)
    except Exception as error:  # RuntimeError and its own classes, by what it does not know
        raise StageError(
            "OpenVINO does not read the exported model.",
            seen=str(error).strip().splitlines()[-1][:300],
            hint="leave openvino out of export.formats",
        ) from error
    plane_axes, first = ops.constant(np.array([2, 3], np.int64)), ops.constant(np.array(0, np.int64))
    for node in model.get_ops():
        if node.get_type_name() != "Interpolate" or not node.get_attributes()["antialias"]:
            continue
        sizes = ops.gather(node.input(1).get_source_output(), plane_axes, first)
        resized = ops.interpolate(node.input(0).get_source_output(), sizes, "bilinear_pillow", "sizes", axes=plane_axes)
        resized.set_friendly_name(node.get_friendly_name())
        names = node.output(0).get_names()
        node.output(0).replace(resized.output(0))
        resized.output(0).set_names(names)
    return model


def to_openvino(exported: bytes, folder: Path) -> None:
    """Write ``model.xml`` and ``model.bin``, weights in float32; equal models give equal bytes.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        StageError: OpenVINO does not read it.
    """
    model = convert(exported)
    for number, node in enumerate(model.get_ordered_ops()):
        if node.get_friendly_name() == node.get_name():  # named by a counter of the process: it would differ each time
            node.set_friendly_name(f"{node.get_type_name()}_{number}")
    import_openvino().save_model(model, str(folder / MODEL_XML), compress_to_fp16=False)


def open_openvino(path: Path, *, num_threads: int = 0) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """Open the file on the CPU in float32; the call maps (N, H, W, 3) uint8 to (N, C) float32.

    Args:
        path: Of ``model.xml``.
        num_threads: Of one call; 0: all cores.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    openvino = import_openvino()
    threads = {"INFERENCE_NUM_THREADS": num_threads} if num_threads else {}
    compiled = openvino.Core().compile_model(str(path), "CPU", {**_FLOAT32, **threads})

    def run(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        answer: npt.NDArray[np.float32] = np.array(compiled(batch)[0], dtype=np.float32)
        return answer

    return run


def explain_openvino(model: nn.Module, exported: bytes, picture: ImageArray, preprocess: Preprocess) -> str:
    """Say which layer first differs in OpenVINO: the tensors of the ONNX model keep their names there."""
    openvino = import_openvino()
    converted = convert(exported)
    tensors = {PIXELS: PIXELS, **watched(onnx.load_from_string(exported), model)}
    paths = [path for path, name in tensors.items() if _add_output(converted, name)]
    compiled = openvino.Core().compile_model(converted, "CPU", _FLOAT32)
    results: Sequence[Any] = list(compiled(picture[None]).values())
    values = {path: np.array(value) for path, value in zip(paths, results[1:], strict=True)}
    return explain(model, values, values.pop(PIXELS), picture, preprocess)


def _add_output(model: Any, name: str) -> bool:
    try:
        model.add_outputs(name)
    except RuntimeError:  # OpenVINO has merged it with another tensor
        return False
    return True
