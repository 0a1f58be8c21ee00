"""What an inference request of the Open Inference Protocol asks: validated, without I/O."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from autodl_ray.images import ImageArray
from autodl_ray.serve.http.answers import Refusal, one_line
from autodl_ray.serve.v2.tensors import (
    pixels_of_bytes,
    pixels_of_json,
    require,
    strings_of_bytes,
    strings_of_json,
)

__all__ = ["INPUT", "OUTPUT", "InferRequest", "json_size", "parse_infer"]

INPUT, OUTPUT = "image", "probabilities"
"""Names of the one input and the one output of every model."""

_UNSUPPORTED = ("shared_memory_region", "sequence_id", "sequence_start", "sequence_end")
_PROTOCOL = "the Open Inference Protocol V2"


@dataclass(frozen=True)
class InferRequest:
    """A validated request; exactly one of ``pixels`` and ``files`` is set.

    Attributes:
        id: Of the client, echoed.
        pixels: (N, H, W, 3) uint8.
        files: The bytes of N picture files.
        classification: Answer with this many classes a picture instead of probabilities; 0: probabilities.
        binary: Answer with a binary tensor.
        timeout_s: Seconds the client would wait; None: as long as it takes.
    """

    id: str | None
    pixels: ImageArray | None = None
    files: tuple[bytes, ...] = ()
    classification: int = 0
    binary: bool = False
    timeout_s: float | None = None

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(self.files) if self.pixels is None else len(self.pixels)


def parse_infer(body: bytes, header_length: str, *, max_pixels: int, max_pictures: int) -> InferRequest:
    """Validate the body of an inference request.

    Args:
        body: A JSON object with one input: ``image``, either UINT8 (N, H, W, 3), row by row, RGB; or BYTES (N,),
            picture files (in JSON: their base64). Behind the JSON the tensor may follow as bytes.
        header_length: Value of ``Inference-Header-Content-Length``, the bytes of the JSON; "": all of it is JSON.
        max_pixels: Cap of N × H × W.
        max_pictures: Cap of N.

    Raises:
        Refusal: 400 with the reason.
    """
    size = json_size(body, header_length)
    text, tail = body[:size], memoryview(body)[size:]
    document = _json_object(text)
    parameters = _parameters(document, "the request")
    identifier = document.get("id")
    require(identifier is None or isinstance(identifier, str), "id is a string.")
    binary, classification = _output(document.get("outputs"), _flag(parameters, "binary_data_output"))
    tensor = _the_input(document.get("inputs"))
    raw = _raw(tensor, tail)
    shape = _shape(tensor.get("shape"), max_pictures)
    kind, data = tensor.get("datatype"), tensor.get("data")
    timeout_s = _timeout(parameters)
    if kind == "BYTES":
        require(
            len(shape) == 1 or (len(shape) == 2 and shape[1] == 1),
            f"BYTES input '{INPUT}' has the shape [N] or [N, 1].",
        )
        files = strings_of_json(data, shape) if raw is None else strings_of_bytes(raw, shape)
        return InferRequest(identifier, None, files, classification, binary, timeout_s)
    require(kind == "UINT8", f"Input '{INPUT}' is UINT8 (or BYTES, picture files), got {one_line(kind)}.")
    require(len(shape) == 4 and shape[3] == 3, f"Input '{INPUT}' has the shape (N, H, W, 3), got {list(shape)}.")
    count = math.prod(shape) // 3
    require(count <= max_pixels, f"The pictures are too large: {count:,} pixels, at most {max_pixels:,}.")
    pixels = pixels_of_json(data, shape) if raw is None else pixels_of_bytes(raw, shape)
    return InferRequest(identifier, pixels, (), classification, binary, timeout_s)


def json_size(body: bytes, header_length: str) -> int:
    """Return how many bytes of the body are JSON; see :func:`parse_infer`.

    Raises:
        Refusal: 400, the header is no such number.
    """
    if not header_length:
        return len(body)
    whole = header_length.isascii() and header_length.isdigit() and len(header_length) < 12
    require(
        whole and int(header_length) <= len(body),
        f"Inference-Header-Content-Length is the number of bytes of the JSON, 0 to {len(body)}, "
        f"got {one_line(header_length)}.",
    )
    return int(header_length)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"The body is not JSON: {error}. This endpoint speaks {_PROTOCOL}.") from error
    require(isinstance(document, dict), f"The body is a JSON object of {_PROTOCOL}, got {one_line(document)}.")
    return document  # type: ignore[no-any-return]


def _parameters(owner: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = owner.get("parameters")
    if parameters is None:
        return {}
    require(isinstance(parameters, dict), f"parameters of {where} is an object.")
    for name in _UNSUPPORTED:
        require(name not in parameters, f"The parameter '{name}' of {where} is not supported here.")
    return parameters  # type: ignore[no-any-return]


def _flag(parameters: dict[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    require(isinstance(value, bool), f"{name} is true or false, got {one_line(value)}.")
    return bool(value)


def _timeout(parameters: dict[str, Any]) -> float | None:
    value = parameters.get("timeout")
    if value is None:
        return None
    require(type(value) is int and 0 <= value < 2**53, f"timeout is a number of microseconds, got {one_line(value)}.")
    return float(value) / 1e6 or None


def _output(outputs: Any, binary: bool) -> tuple[bool, int]:
    """Return whether the output is wanted as bytes, and with how many classes."""
    if outputs is None or outputs == []:
        return binary, 0
    require(isinstance(outputs, list) and len(outputs) == 1, f"outputs is a list with one output, '{OUTPUT}'.")
    require(isinstance(outputs[0], dict), "Each of outputs is an object with a name.")
    name = outputs[0].get("name")
    require(name == OUTPUT, f"There is no output {one_line(name)}; there is '{OUTPUT}'.")
    parameters = _parameters(outputs[0], f"output '{OUTPUT}'")
    classes = parameters.get("classification", 0)
    require(
        type(classes) is int and 0 <= classes < 2**31,
        f"classification is a number of classes, got {one_line(classes)}.",
    )
    return (_flag(parameters, "binary_data") if "binary_data" in parameters else binary), classes


def _the_input(inputs: Any) -> dict[str, Any]:
    require(isinstance(inputs, list) and bool(inputs), f"inputs is a list with one input, '{INPUT}'.")
    names = [item.get("name") if isinstance(item, dict) else item for item in inputs[:5]]
    require(
        names == [INPUT] and isinstance(inputs[0], dict),
        f"There is exactly one input, '{INPUT}', got {', '.join(one_line(name) for name in names)}.",
    )
    return inputs[0]  # type: ignore[no-any-return]


def _raw(tensor: dict[str, Any], tail: memoryview) -> memoryview | None:
    """Return the bytes of a binary tensor, or None where its data are in the JSON."""
    parameters = _parameters(tensor, f"input '{INPUT}'")
    size = parameters.get("binary_data_size")
    if size is None:
        require("data" in tensor, f"Input '{INPUT}' has no data.")
        require(len(tail) == 0, f"{len(tail)} bytes follow the JSON, and no input has a binary_data_size.")
        return None
    require(type(size) is int and size >= 0, f"binary_data_size is a number of bytes, got {one_line(size)}.")
    require("data" not in tensor, f"Input '{INPUT}' has data and a binary_data_size: one of them.")
    require(size == len(tail), f"binary_data_size is {one_line(size)}, and {len(tail)} bytes follow the JSON.")
    return tail


def _shape(shape: Any, max_pictures: int) -> tuple[int, ...]:
    whole = isinstance(shape, list) and len(shape) <= 8 and all(type(n) is int and 0 < n < 2**31 for n in shape)
    require(whole and bool(shape), f"shape is a list of whole numbers above 0, got {one_line(shape)}.")
    require(shape[0] <= max_pictures, f"At most {max_pictures} pictures a request, got shape {shape}.")
    return tuple(shape)
