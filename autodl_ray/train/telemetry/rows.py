"""JSON lines that are appended to: whole after any kill, cut back when a training goes on, thinned when they grow."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autodl_ray.artifacts import write_atomic

__all__ = ["ABOUT", "EPOCHS", "STEPS", "Row", "append_rows", "cut_from", "read_rows", "thin"]

STEPS, EPOCHS, ABOUT = "steps.jsonl", "epochs.jsonl", "about.json"

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Return the whole rows of a file; [] where there is none. A last line that was torn is left out."""
    try:
        raw = path.read_bytes()
    except OSError:
        return []
    return [row for line in raw.split(b"\n")[:-1] if (row := _row(line)) is not None]


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows behind those that are there, in one call to the kernel: what survives a ``kill -9``."""
    text = "".join(json.dumps(_plain(row), separators=(",", ":")) + "\n" for row in rows)
    if text:
        with path.open("ab", buffering=0) as stream:
            stream.write(text.encode())


def cut_from(path: Path, key: str, first: int) -> int:
    """Remove the rows whose ``key`` is ``first`` or more, and a torn last line; return how many rows stay.

    A training that goes on from a checkpoint makes some steps again; their rows must not be there twice.
    """
    try:
        raw = path.read_bytes()
    except OSError:
        return 0
    kept, size = 0, 0
    for line in raw.split(b"\n")[:-1]:
        row = _row(line)
        if row is None or int(row.get(key, first)) >= first:
            break
        kept, size = kept + 1, size + len(line) + 1
    if size < len(raw):
        with path.open("r+b") as stream:
            stream.truncate(size)
    return kept


def thin(path: Path) -> int:
    """Leave every second row (the first stays); return how many are left."""
    rows = path.read_bytes().split(b"\n")[:-1][::2]
    write_atomic(path, b"".join(row + b"\n" for row in rows), durable=False)
    return len(rows)


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _plain(value: Any) -> Any:
    """Return what JSON can hold: numbers of 7 digits or more, None for what is not finite."""
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [_plain(v) for v in value]
    number = float(value)
    if not math.isfinite(number):
        return None
    return round(number, 3) if abs(number) >= 1e4 else float(f"{number:.7g}")
