"""Arrow columns from Python lists and back, without the conversions of pyarrow that import pandas (0.3 s)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["digest_column", "digests_of", "flag_column", "list_column", "number_column", "numbers_of", "text_column"]

_DIGEST_BYTES = 32
_TYPES = {"int32": pa.int32, "int64": pa.int64, "float64": pa.float64}


def text_column(values: Sequence[str | None]) -> pa.Array:
    """Return a column of strings."""
    builder = pa.lib.StringBuilder()
    builder.append_values(values)
    return builder.finish()


def number_column(values: npt.ArrayLike, kind: str = "int64") -> pa.Array:
    """Return a column of ``int32``, ``int64`` or ``float64``."""
    array = np.ascontiguousarray(values, dtype=kind)
    return pa.Array.from_buffers(_TYPES[kind](), len(array), [None, pa.py_buffer(array)])


def flag_column(values: npt.ArrayLike) -> pa.Array:
    """Return a column of bool."""
    flags = np.asarray(values, dtype=bool)
    return pa.Array.from_buffers(pa.bool_(), len(flags), [None, _bits(flags)])


def digest_column(digests: Sequence[str]) -> pa.Array:
    """Return a column of sha256 from 64 hex digits each; an empty text is 32 zeros."""
    data = b"".join(bytes.fromhex(text) if text else bytes(_DIGEST_BYTES) for text in digests)
    return pa.Array.from_buffers(pa.binary(_DIGEST_BYTES), len(digests), [None, pa.py_buffer(data)])


def list_column(counts: Sequence[int | None], fields: dict[str, pa.Array]) -> pa.Array:
    """Return a column of lists of structs.

    Args:
        counts: How many structs each row has; None: the row is null.
        fields: The columns of all structs, one row after the other.
    """
    there = np.array([count is not None for count in counts], dtype=bool)
    starts = np.concatenate([[0], np.cumsum([count or 0 for count in counts], dtype=np.int64)]).astype(np.int32)
    struct = pa.struct([pa.field(name, column.type) for name, column in fields.items()])
    values = pa.Array.from_buffers(struct, int(starts[-1]), [None], children=list(fields.values()))
    return pa.Array.from_buffers(pa.list_(struct), len(counts), [_bits(there), pa.py_buffer(starts)], children=[values])


def numbers_of(table: pa.Table, name: str) -> npt.NDArray[Any]:
    """Return a column of numbers or bool (without nulls) as an array."""
    column = table.column(name)
    if pa.types.is_boolean(column.type):
        return np.array(column.to_pylist(), dtype=bool)
    kind = np.dtype(str(column.type).replace("double", "float64"))
    parts = [
        np.frombuffer(chunk.buffers()[1], kind, count=len(chunk), offset=chunk.offset * kind.itemsize)
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def digests_of(table: pa.Table, name: str) -> list[str]:
    """Return a column of sha256 as hex digits; 32 zeros are an empty text."""
    nothing = bytes(_DIGEST_BYTES)
    return ["" if digest == nothing else digest.hex() for digest in table.column(name).to_pylist()]


def _bits(flags: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little").tobytes())
