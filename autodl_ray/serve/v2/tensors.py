"""Tensors of the Open Inference Protocol: from JSON or bytes to arrays, and back."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autodl_ray.images import ImageArray
from autodl_ray.serve.http.answers import Refusal, one_line

__all__ = [
    "pack_strings", "pixels_of_bytes", "pixels_of_json", "require", "strings_of_bytes", "strings_of_json", "values_of",
]  # fmt: skip

_RANGE = "data of UINT8 are whole numbers from 0 to 255"
_SHORT_VALUES = 4096


def require(holds: bool, message: str) -> None:
    """Refuse with 400 and ``message`` unless ``holds``."""
    if not holds:
        raise Refusal(400, message)


def pixels_of_bytes(data: memoryview, shape: tuple[int, ...]) -> ImageArray:
    """Return the UINT8 tensor of ``shape`` that lies in ``data``, without a copy."""
    count = math.prod(shape)
    require(len(data) == count, f"shape {list(shape)} needs {count} bytes, binary_data_size is {len(data)}.")
    return np.frombuffer(data, np.uint8).reshape(shape)


def pixels_of_json(data: Any, shape: tuple[int, ...]) -> ImageArray:
    """Return the UINT8 tensor of ``shape`` from a list of numbers, flat or nested, row by row."""
    require(isinstance(data, list), f"data is a list of numbers, got {one_line(data)}.")
    # As objects: a long string among the numbers would make an array of strings as long as that for each of them.
    values = np.array(data, dtype=object)
    flat = data if values.ndim == 1 else values.ravel().tolist()
    kinds = set(map(type, flat))
    require(list not in kinds, "data is ragged: its rows have different lengths.")
    count = math.prod(shape)
    require(len(flat) == count, f"shape {list(shape)} needs {count} values, data has {len(flat)}.")
    require(
        values.ndim == 1 or values.shape == shape,
        f"data is flat or nested as shape {list(shape)}, got nesting {list(values.shape)}.",
    )
    require(kinds == {int}, f"{_RANGE}.")
    try:
        return np.frombuffer(bytes(flat), np.uint8).reshape(shape)
    except ValueError as error:
        raise Refusal(400, f"{_RANGE}, got {one_line(min(flat), 20)} to {one_line(max(flat), 20)}.") from error


def strings_of_json(data: Any, shape: tuple[int, ...]) -> tuple[bytes, ...]:
    """Return the files of a BYTES tensor from base64 strings."""
    count = math.prod(shape)
    require(
        isinstance(data, list) and len(data) == count, f"BYTES of shape {list(shape)} have {count} strings of data."
    )
    require(all(isinstance(text, str) for text in data), "data of BYTES are base64 strings.")
    try:
        return tuple(base64.b64decode(text, validate=True) for text in data)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"data of BYTES are base64 strings: {error}.") from error


def strings_of_bytes(data: memoryview, shape: tuple[int, ...]) -> tuple[bytes, ...]:
    """Return the elements of a BYTES tensor: each is its length (4 bytes, little endian) and that many bytes."""
    found, position = [], 0
    while position < len(data):
        require(position + 4 <= len(data), "The BYTES data end inside a length.")
        (size,) = struct.unpack_from("<I", data, position)
        position += 4
        require(position + size <= len(data), f"The BYTES data end inside an element of {size} bytes.")
        found.append(bytes(data[position : position + size]))
        position += size
    count = math.prod(shape)
    require(len(found) == count, f"shape {list(shape)} needs {count} elements, the BYTES data have {len(found)}.")
    return tuple(found)


def pack_strings(texts: Sequence[str]) -> bytes:
    """Return a BYTES tensor: the length of each element (4 bytes, little endian) and its UTF-8."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return b"".join(struct.pack("<I", len(element)) + element for element in encoded)


def values_of(numbers: npt.NDArray[np.float32]) -> list[float]:
    """Return float32 numbers for JSON: they read back as the same float32, few of them in the shortest decimals."""
    flat = numbers.ravel()
    return [float(str(value)) for value in flat] if flat.size <= _SHORT_VALUES else flat.tolist()
