"""After a sweep: one table of all its trainings, and event files for those that were too short to write their own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from autodl_ray.train.telemetry.event_files import EVENT_FILES, write_events
from autodl_ray.train.telemetry.parquet import METRICS, write_metrics
from autodl_ray.train.telemetry.rows import ABOUT, EPOCHS

__all__ = ["collect", "read_about", "trainings"]


def collect(folder: Path, *, tensorboard: bool, seconds: float = 1.0) -> int:
    """Gather what the trainings of a sweep wrote.

    Args:
        folder: ``RUN/metrics/KEY``, with a folder for each trial; ``metrics.parquet`` is written there.
        tensorboard: Whether trainings without event files are given some, the latest first, for at most ``seconds``.
        seconds: See there; a thousand tiny trials would else take longer than they are worth.

    Returns:
        How many trainings there are; 0: nothing was written.
    """
    found = trainings(folder)
    if not found:
        return 0
    write_metrics(folder / METRICS, [(f"{folder.name}/{one.name}", one) for one in found])
    end = time.monotonic() + seconds
    for one in reversed(found) if tensorboard else ():
        if time.monotonic() > end:
            break
        if not any(one.glob(EVENT_FILES)):
            params = read_about(one).get("params") or {}
            write_events(one, params=params, name=f"{folder.name}/{one.name}").close()
    return len(found)


def trainings(folder: Path) -> list[Path]:
    """Return the folders of trainings in ``folder``, by name."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and ((p / ABOUT).exists() or (p / EPOCHS).exists()))


def read_about(folder: Path) -> dict[str, Any]:
    """Return what is written about a training: run, key, trial, params, started, ended, status; {} without it."""
    try:
        document = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
