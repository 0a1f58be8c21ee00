"""metrics.parquet: every number of a training, or of all trainings of a sweep, as one long tidy table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autodl_ray.train.telemetry.rows import EPOCHS, STEPS, Row, read_rows

__all__ = ["METRICS", "write_metrics"]

METRICS = "metrics.parquet"

_COUNTERS = ("step", "epoch", "time")


def write_metrics(target: Path, trainings: Iterable[tuple[str, Path]]) -> int:
    """Write the rows of trainings as one table.

    Columns: ``trial`` (text), ``kind`` (``step`` or ``epoch``), ``epoch`` int32, ``step`` int64 (of an epoch: its
    last), ``time`` float64 (Unix, s), ``metric`` (text: a name of :mod:`autodl_ray.train.telemetry.columns`;
    ``recall/007`` is that of class 7), ``value`` float64. Texts are dictionary-encoded.

    Args:
        target: The file.
        trainings: Names and folders.

    Returns:
        Rows of the table.
    """
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, list[Any]] = {k: [] for k in ("trial", "kind", "epoch", "step", "time", "metric", "value")}
    for trial, folder in trainings:
        for kind, rows in (("step", read_rows(folder / STEPS)), ("epoch", read_rows(folder / EPOCHS))):
            for row in rows:
                _add(columns, trial, kind, row)
    table = pa.table(
        {
            "trial": _texts(columns["trial"]),
            "kind": _texts(columns["kind"]),
            "epoch": _numbers(columns["epoch"], "int32"),
            "step": _numbers(columns["step"], "int64"),
            "time": _numbers(columns["time"], "float64"),
            "metric": _texts(columns["metric"]),
            "value": _numbers(columns["value"], "float64"),
        }
    )
    temporary = target.with_name(f".{target.name}")
    parquet.write_table(table, temporary, compression="zstd")
    temporary.replace(target)
    return int(table.num_rows)


def _add(columns: dict[str, list[Any]], trial: str, kind: str, row: Row) -> None:
    for name, value in row.items():
        if name in _COUNTERS:
            continue
        many = [(f"{name}/{i:03d}", v) for i, v in enumerate(value)] if isinstance(value, list) else [(name, value)]
        for metric, number in many:
            if isinstance(number, int | float):
                columns["trial"].append(trial)
                columns["kind"].append(kind)
                columns["epoch"].append(row.get("epoch", 0))
                columns["step"].append(row.get("step", 0))
                columns["time"].append(row.get("time", 0.0))
                columns["metric"].append(metric)
                columns["value"].append(float(number))


def _texts(values: Sequence[str]) -> Any:
    """A dictionary-encoded column, without the conversion of pyarrow that imports pandas (0.3 s)."""
    import pyarrow as pa

    words = list(dict.fromkeys(values))
    places = {word: i for i, word in enumerate(words)}
    builder = pa.lib.StringBuilder()
    builder.append_values(words)
    return pa.DictionaryArray.from_arrays(_numbers([places[v] for v in values], "int32"), builder.finish())


def _numbers(values: Sequence[float], kind: str) -> Any:
    import pyarrow as pa

    array = np.ascontiguousarray(values, dtype=kind)
    return pa.Array.from_buffers(getattr(pa, kind)(), len(array), [None, pa.py_buffer(array)])
