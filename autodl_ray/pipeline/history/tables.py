"""Trials and curves of a run as tables, and those tables as CSV, Parquet or JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autodl_ray.artifacts import write_atomic
from autodl_ray.errors import InputError, StoreError
from autodl_ray.pipeline.history.runs import RunHistory

__all__ = ["FORMATS", "curve_rows", "trial_rows", "write_tables"]

FORMATS = (".csv", ".parquet", ".json")

Row = dict[str, Any]


def trial_rows(run: RunHistory) -> list[Row]:
    """Return one row a trial of every sweep and training, with a column ``param.NAME`` for each setting."""
    rows: list[Row] = []
    for sweep in run.sweeps.values():
        for rank, trial in enumerate(sweep.ranked(), start=1):
            best = trial.best_row(sweep.metric, sweep.mode) or {}
            row: Row = {
                "run": run.name,
                "sweep": sweep.key,
                "trial": trial.id,
                "rank": rank if best else None,
                "status": trial.status,
                "reason": trial.reason,
                "metric": sweep.metric,
                "value": best.get(sweep.metric),
                "best_epoch": best.get("epoch"),
                "epochs": trial.epochs,
                "seconds": trial.seconds,
            }
            rows.append(row | {f"param.{name}": value for name, value in trial.params.items()})
    return rows


def curve_rows(run: RunHistory) -> list[Row]:
    """Return one row an epoch of every trial, with everything that was reported as one number or word."""
    return [
        {"run": run.name, "sweep": sweep.key, "trial": trial.id}
        | {k: v for k, v in report.items() if v is None or isinstance(v, str | int | float | bool)}
        for sweep in run.sweeps.values()
        for trial in sweep.trials
        for report in trial.curve
    ]


def write_tables(run: RunHistory, file: Path) -> list[Path]:
    """Write the trials into ``file`` and the curves beside it (``NAME-curves.csv``); JSON holds both in one file.

    Returns:
        The files that were written.

    Raises:
        InputError: The name ends in none of :data:`FORMATS`.
        StoreError: The file cannot be written.
    """
    kind = file.suffix.lower()
    if kind not in FORMATS:
        raise InputError("The file's name says what is written.", seen=file.name, accepted=", ".join(FORMATS))
    trials, curves = trial_rows(run), curve_rows(run)
    beside = file.with_name(f"{file.stem}-curves{file.suffix}")
    try:
        if kind == ".json":
            write_atomic(file, json.dumps({"trials": trials, "curves": curves}, indent=1, default=str) + "\n")
            return [file]
        write = _write_csv if kind == ".csv" else _write_parquet
        write(file, trials)
        write(beside, curves)
    except OSError as error:
        raise StoreError("The table could not be written.", seen=f"{file}: {error}") from error
    return [file, beside]


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _write_csv(file: Path, rows: Sequence[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, _columns(rows), restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _write_parquet(file: Path, rows: Sequence[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: pa.array(_alike([row.get(name) for row in rows])) for name in _columns(rows)}
    pq.write_table(pa.table(columns), file)


def _alike(values: list[Any]) -> list[Any]:
    """Give a column one type: numbers stay numbers, a mixture becomes text."""
    kinds = {type(v) for v in values if v is not None}
    if len(kinds) <= 1:
        return values
    if kinds <= {int, float}:
        return [None if v is None else float(v) for v in values]
    return [None if v is None else str(v) for v in values]
