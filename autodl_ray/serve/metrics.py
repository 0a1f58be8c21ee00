"""Counters and histograms of the replicas of one machine, as Prometheus text; nothing is imported for them."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["SERIES", "Labels", "Metrics", "Series", "Snapshot"]

Labels = tuple[str, ...]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PICTURES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_WRITE_EVERY_S = 1.0
_log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Series:
    """What one name counts.

    Attributes:
        kind: Of Prometheus.
        help: One line.
        labels: Names of the labels.
        bounds: Upper bounds of a histogram's buckets.
    """

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


SERIES: Mapping[str, Series] = {
    "autodl_requests_total": Series("counter", "Requests answered.", ("route", "status", "model", "version")),
    "autodl_request_seconds": Series(
        "histogram", "Seconds from the first byte to the answer.", ("route", "model", "version"), _SECONDS
    ),
    "autodl_requests_in_progress": Series("gauge", "Requests under way."),
    "autodl_pictures_total": Series("counter", "Pictures answered or refused.", ("outcome", "model", "version")),
    "autodl_stage_seconds": Series(
        "histogram", "Seconds of a picture in a stage: queue, decode, infer.", ("stage", "model", "version"), _SECONDS
    ),
    "autodl_batch_pictures": Series("histogram", "Pictures in one call of a model.", ("model", "version"), _PICTURES),
    "autodl_queue_pictures": Series("gauge", "Pictures that wait for a thread."),
    "autodl_recorded_total": Series(
        "counter", "Sampled answers, by what came of them.", ("outcome", "model", "version")
    ),
    "autodl_drift_pictures": Series("gauge", "Pictures that are held against the training.", ("model", "version")),
    "autodl_drift_distance": Series(
        "gauge",
        "Distance from the training: PSI; of classes Jensen-Shannon divergence.",
        ("statistic", "model", "version"),
    ),
    "autodl_drift_limit": Series("gauge", "Distance from which it is drift.", ("statistic", "model", "version")),
    "autodl_drifting": Series("gauge", "1 when a distance is at its limit or above.", ("model", "version")),
    "autodl_model_info": Series("gauge", "1 for every version that is served now.", ("model", "version", "dataset")),
}
"""Every series by its name."""


@dataclass
class Snapshot:
    """Values at one moment: (name, labels) → number, or [count per bucket …, count, sum] of a histogram."""

    values: dict[tuple[str, Labels], float] = field(default_factory=dict)
    histograms: dict[tuple[str, Labels], list[float]] = field(default_factory=dict)

    def add(self, other: Snapshot, *, gauges: bool = True) -> None:
        """Add another replica's; ``gauges=False`` leaves out what only holds while it lives."""
        for key, value in other.values.items():
            if gauges or SERIES[key[0]].kind != "gauge":
                self.values[key] = self.values.get(key, 0.0) + value
        for key, counts in other.histograms.items():
            mine = self.histograms.get(key)
            self.histograms[key] = counts[:] if mine is None else [a + b for a, b in zip(mine, counts, strict=True)]

    def total(self, name: str, labels: Labels) -> tuple[float, float]:
        """Return (count, sum) of a histogram."""
        counts = self.histograms.get((name, labels))
        return (0.0, 0.0) if counts is None else (counts[-2], counts[-1])


class Metrics:
    """The series of one replica; safe to use from several threads.

    Args:
        folder: Where the replicas of this machine leave their values for each other once a second; None: nowhere.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._mine = Snapshot()
        self._lock = threading.Lock()
        self._file_lock = threading.Lock()
        self._folder = folder
        self._written = 0.0
        self._is_well = True
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def count(self, name: str, labels: Labels = (), by: float = 1.0) -> None:
        """Add to a counter or a gauge."""
        key = (name, labels)
        with self._lock:
            self._mine.values[key] = self._mine.values.get(key, 0.0) + by

    def observe(self, name: str, value: float, labels: Labels = ()) -> None:
        """Enter a value into a histogram."""
        bounds = SERIES[name].bounds
        key = (name, labels)
        with self._lock:
            counts = self._mine.histograms.get(key)
            if counts is None:
                counts = self._mine.histograms[key] = [0.0] * (len(bounds) + 3)
            counts[bisect_left(bounds, value)] += 1
            counts[-2] += 1
            counts[-1] += value

    def publish(self) -> None:
        """Leave the values for the other replicas, at most once a second."""
        now = time.monotonic()
        if self._folder is not None and now - self._written >= _WRITE_EVERY_S:
            self._written = now
            self._write(self._folder)

    def snapshot(self) -> Snapshot:
        """Return the values of all replicas of this machine; those that have ended keep their counters."""
        whole = Snapshot()
        with self._lock:
            whole.add(self._mine)
        if self._folder is not None:
            self._write(self._folder)
            for file in self._folder.glob("*.json"):
                if file.stem != str(os.getpid()):
                    whole.add(_read(file), gauges=_lives(int(file.stem)))
        return whole

    def text(self, more: Snapshot | None = None) -> str:
        """Return the values, and ``more`` that hold for all replicas, in Prometheus' text format 0.0.4."""
        whole = self.snapshot()
        if more is not None:
            whole.add(more)
        lines: list[str] = []
        for name, series in SERIES.items():
            lines += [f"# HELP {name} {series.help}", f"# TYPE {name} {series.kind}"]
            if series.kind == "histogram":
                for (owner, labels), counts in sorted(whole.histograms.items()):
                    lines += _histogram(name, series, labels, counts) if owner == name else []
            else:
                found = sorted(item for item in whole.values.items() if item[0][0] == name)
                lines += [f"{name}{_braces(series.labels, labels)} {_number(value)}" for (_, labels), value in found]
        return "\n".join(lines) + "\n"

    def _write(self, folder: Path) -> None:
        """Write the file of this process; where that is not possible it is told once."""
        with self._lock:
            content = {
                "values": [[name, labels, value] for (name, labels), value in self._mine.values.items()],
                "histograms": [[name, labels, counts] for (name, labels), counts in self._mine.histograms.items()],
            }
            text = json.dumps(content)
        hidden = folder / f".{os.getpid()}"
        with self._file_lock:  # a thread answers /metrics while the loop publishes
            try:
                hidden.write_text(text, encoding="utf-8")
                hidden.replace(folder / f"{os.getpid()}.json")
                self._is_well = True
            except OSError as error:
                if self._is_well:
                    _log.error("other replicas do not see the metrics of this one: %s", error)
                self._is_well = False


def _read(file: Path) -> Snapshot:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # taken away in this moment
        return Snapshot()
    return Snapshot(
        {(name, tuple(labels)): value for name, labels, value in content["values"] if name in SERIES},
        {(name, tuple(labels)): counts for name, labels, counts in content["histograms"] if name in SERIES},
    )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _histogram(name: str, series: Series, labels: Labels, counts: list[float]) -> list[str]:
    lines, below = [], 0.0
    for bound, count in zip((*series.bounds, float("inf")), counts, strict=False):
        below += count
        edge = "+Inf" if bound == float("inf") else f"{bound:g}"
        lines.append(f"{name}_bucket{_braces((*series.labels, 'le'), (*labels, edge))} {below:.0f}")
    braces = _braces(series.labels, labels)
    return [*lines, f"{name}_sum{braces} {counts[-1]:.6f}", f"{name}_count{braces} {counts[-2]:.0f}"]


def _braces(names: tuple[str, ...], values: Labels) -> str:
    if not names:
        return ""
    escaped = (v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for v in values)
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(names, escaped, strict=True)) + "}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else repr(value)
