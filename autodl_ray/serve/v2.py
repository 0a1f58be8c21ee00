"""The Open Inference Protocol V2 with JSON tensors: requests are validated, answers rendered; no I/O here."""

from __future__ import annotations

import base64
import binascii
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.exceptions import HTTPException

from autodl_ray.images import ImageArray
from autodl_ray.serve.engine import ServedModel

__all__ = ["InferRequest", "model_metadata", "parse_infer", "render_infer", "server_metadata"]

_INPUT, _OUTPUT = "image", "probabilities"
_MAX_BATCH = 256
_UNSUPPORTED = ("shared_memory_region", "classification", "sequence_id", "binary_data_size")
_PROTOCOL = "the Open Inference Protocol V2 (JSON)"


@dataclass(frozen=True)
class InferRequest:
    """A validated request; exactly one of ``pixels`` and ``files`` is set.

    Attributes:
        id: Of the client, echoed.
        pixels: (N, H, W, 3) uint8.
        files: The bytes of N picture files.
    """

    id: str | None
    pixels: ImageArray | None = None
    files: tuple[bytes, ...] = ()


def server_metadata(version: str) -> dict[str, Any]:
    """Return what ``GET /v2`` answers."""
    return {"name": "autodl_ray", "version": version, "extensions": ["model_repository"]}


def model_metadata(model: ServedModel) -> dict[str, Any]:
    """Return what ``GET /v2/models/NAME`` answers; the class names are among the parameters of the output."""
    labels = list(model.classes)
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": _INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
        "outputs": [
            {"name": _OUTPUT, "datatype": "FP32", "shape": [-1, len(labels)], "parameters": {"labels": labels}}
        ],
        "parameters": {"dataset": model.dataset},
    }


def parse_infer(body: bytes, *, max_pixels: int) -> InferRequest:
    """Validate the body of an inference request.

    Args:
        body: A JSON object with one input: ``image``, either UINT8 (N, H, W, 3), flat or nested, row by row, RGB;
            or BYTES (N,), the base64 of picture files.
        max_pixels: Cap of N × H × W.

    Raises:
        HTTPException: 400 with the reason.
    """
    document = _json_object(body)
    _check_parameters(document, "the request")
    identifier = document.get("id")
    _require(identifier is None or isinstance(identifier, str), "id is a string.")
    _check_outputs(document.get("outputs"))
    tensor = _the_input(document.get("inputs"))
    shape = _shape(tensor.get("shape"))
    if tensor.get("datatype") == "BYTES":
        return InferRequest(identifier, files=_files(tensor.get("data"), shape))
    _require(
        tensor.get("datatype") == "UINT8",
        f"Input '{_INPUT}' is UINT8 (or BYTES, base64 of picture files), got {_short(tensor.get('datatype'))}.",
    )
    return InferRequest(identifier, pixels=_pixels(tensor.get("data"), shape, max_pixels))


def render_infer(model: ServedModel, request: InferRequest, probabilities: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Return the answer for (N, C) float32 probabilities."""
    answer: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if request.id is not None:
        answer["id"] = request.id
    # The shortest decimals that read back as the same float32.
    data = [float(str(value)) for value in probabilities.ravel()]
    output = {"name": _OUTPUT, "datatype": "FP32", "shape": list(probabilities.shape), "data": data}
    return {**answer, "outputs": [output]}


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The body is not JSON: {error}. This endpoint speaks {_PROTOCOL}.") from error
    _require(isinstance(document, dict), f"The body is a JSON object of {_PROTOCOL}, got {_short(document)}.")
    return document  # type: ignore[no-any-return]


def _check_parameters(owner: dict[str, Any], where: str) -> None:
    parameters = owner.get("parameters") or {}
    _require(isinstance(parameters, dict), f"parameters of {where} is an object.")
    for name in _UNSUPPORTED:
        _require(name not in parameters, f"The parameter '{name}' of {where} is not supported here.")


def _check_outputs(outputs: Any) -> None:
    if outputs is None:
        return
    _require(isinstance(outputs, list), "outputs is a list.")
    for output in outputs:
        _require(isinstance(output, dict), "Each of outputs is an object with a name.")
        name = output.get("name")
        _require(name == _OUTPUT, f"There is no output {_short(name)}; there is '{_OUTPUT}'.")
        _check_parameters(output, f"output '{_OUTPUT}'")


def _the_input(inputs: Any) -> dict[str, Any]:
    _require(isinstance(inputs, list) and bool(inputs), f"inputs is a list with one input, '{_INPUT}'.")
    names = [item.get("name") if isinstance(item, dict) else item for item in inputs]
    _require(
        names == [_INPUT],
        f"There is exactly one input, '{_INPUT}', got {', '.join(_short(name) for name in names)}.",
    )
    _check_parameters(inputs[0], f"input '{_INPUT}'")
    _require("data" in inputs[0], f"Input '{_INPUT}' has no data.")
    return inputs[0]  # type: ignore[no-any-return]


def _shape(shape: Any) -> tuple[int, ...]:
    whole = isinstance(shape, list) and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape)
    _require(whole, f"shape is a list of whole numbers above 0, got {_short(shape)}.")
    _require(not shape or shape[0] <= _MAX_BATCH, f"At most {_MAX_BATCH} pictures a request, got shape {shape}.")
    return tuple(shape)


def _pixels(data: Any, shape: tuple[int, ...], max_pixels: int) -> ImageArray:
    _require(
        len(shape) == 4 and shape[3] == 3,
        f"Input '{_INPUT}' has the shape (N, H, W, 3), got {list(shape)}.",
    )
    count = math.prod(shape)
    _require(count // 3 <= max_pixels, f"The pictures are too large: {count // 3:,} pixels, at most {max_pixels:,}.")
    _require(isinstance(data, list), f"data is a list of numbers, got {_short(data)}.")
    try:
        values = np.asarray(data)
    except ValueError as error:
        raise HTTPException(400, "data is ragged: its rows have different lengths.") from error
    _require(values.size == count, f"shape {list(shape)} needs {count} values, data has {values.size}.")
    _require(
        values.ndim == 1 or values.shape == shape,
        f"data is flat or nested as shape {list(shape)}, got nesting {list(values.shape)}.",
    )
    _require(values.dtype.kind in "iu", "data of UINT8 are whole numbers from 0 to 255.")
    low, high = int(values.min()), int(values.max())
    _require(low >= 0 and high <= 255, f"data of UINT8 are whole numbers from 0 to 255, got {low} to {high}.")
    return values.astype(np.uint8).reshape(shape)


def _files(data: Any, shape: tuple[int, ...]) -> tuple[bytes, ...]:
    _require(
        len(shape) == 1 and isinstance(data, list) and len(data) == shape[0],
        f"BYTES input '{_INPUT}' has the shape [N] and N strings of data.",
    )
    _require(all(isinstance(text, str) for text in data), "data of BYTES are base64 strings.")
    try:
        return tuple(base64.b64decode(text, validate=True) for text in data)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(400, f"data of BYTES are base64 strings: {error}.") from error


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise HTTPException(400, message)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
