"""The table: every engine at every batch size and number of threads, timed in turn within a cap of seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts.bundle import BundleInfo
from autodl_ray.errors import InputError
from autodl_ray.export.bench.engines import ENGINES, Engine, EngineName, open_engines
from autodl_ray.export.speed import interleaved_seconds
from autodl_ray.images import ImageArray

__all__ = ["BenchRow", "BenchTable", "Grid", "bench"]

_ROUNDS = 400
_LEAST_S = 0.5


@dataclass(frozen=True)
class Grid:
    """What is measured.

    Attributes:
        batches: Pictures a call.
        threads: Threads of a call.
        engines: Which.
        seconds: How long all of it may take, about.
    """

    batches: tuple[int, ...] = (1, 8, 32)
    threads: tuple[int, ...] = ()
    engines: tuple[EngineName, ...] = ENGINES
    seconds: float = 60.0

    def cells(self) -> tuple[tuple[int, int], ...]:
        """Return (threads, batch), the cheapest first; without threads named: one, and all cores.

        Raises:
            InputError: A number is not positive.
        """
        cores = len(os.sched_getaffinity(0))
        threads = self.threads or tuple(sorted({1, cores}))
        wrong = [n for n in (*self.batches, *threads) if n < 1]
        if wrong:
            raise InputError("A batch and a number of threads are at least 1.", seen=str(wrong[0]), accepted="from 1")
        return tuple((t, b) for b in sorted(set(self.batches)) for t in sorted(set(threads)))


@dataclass(frozen=True)
class BenchRow:
    """One engine with one file at one batch size and number of threads.

    Attributes:
        engine: Name of it.
        variant: ``fp32`` or ``int8``.
        batch: Pictures a call.
        threads: Of a call.
        p50_ms: Median milliseconds of a call.
        p95_ms: 95th percentile.
        images_per_s: Pictures a second, from the median.
        calls: How many were timed.
    """

    engine: str
    variant: str
    batch: int
    threads: int
    p50_ms: float
    p95_ms: float
    images_per_s: float
    calls: int

    @property
    def label(self) -> str:
        """Engine and variant, as in a table; torch has no other than FP32."""
        return self.engine if self.engine.startswith("torch") else f"{self.engine} {self.variant}"


@dataclass(frozen=True)
class BenchTable:
    """What was measured, and what was not, with the reason."""

    rows: tuple[BenchRow, ...]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"rows": [asdict(row) for row in self.rows], "left_out": list(self.left_out)}


def bench(
    folder: Path,
    info: BundleInfo,
    pictures: Sequence[ImageArray],
    grid: Grid,
    *,
    tell: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> BenchTable:
    """Time what answers for a bundle; raw pictures in, probabilities out, decoding not included.

    Args:
        folder: Of the bundle.
        info: Its record.
        pictures: At least one, of equal size.
        grid: What is measured.
        tell: Is told how many cells of how many are done, and which is next.
    """
    cells = grid.cells()
    rows: list[BenchRow] = []
    left_out: dict[str, None] = {}
    opened: dict[int, list[Engine]] = {}
    began = time.perf_counter()
    for done, (threads, batch) in enumerate(cells):
        tell(done, len(cells), f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}")
        left = grid.seconds - (time.perf_counter() - began)
        if done and left <= 0:
            left_out[f"batch {batch} with {threads} threads: the {grid.seconds:g} s were over"] = None
            continue
        if threads not in opened:
            opened[threads] = open_engines(folder, info, grid.engines, num_threads=threads)
        engines = opened[threads]
        left = grid.seconds - (time.perf_counter() - began)
        left_out.update({f"{e.label}: {e.note}": None for e in engines if e.answer is None})
        rows += _timed(engines, _batch(pictures, batch), threads, max(_LEAST_S, left / (len(cells) - done)))
    tell(len(cells), len(cells), f"{len(rows)} rows")
    return BenchTable(tuple(rows), tuple(left_out))


def _timed(engines: Sequence[Engine], batch: npt.NDArray[np.uint8], threads: int, limit_s: float) -> list[BenchRow]:
    calls = {e.label: (lambda answer=e.answer: answer(batch)) for e in engines if e.answer is not None}
    if not calls:
        return []
    seconds = interleaved_seconds(calls, repeats=_ROUNDS, limit_s=limit_s)
    by_label = {engine.label: engine for engine in engines}
    return [_row(by_label[label], times, len(batch), threads) for label, times in seconds.items()]


def _row(engine: Engine, times: Sequence[float], batch: int, threads: int) -> BenchRow:
    p50, p95 = (float(v) for v in np.percentile(times, [50, 95]))
    return BenchRow(
        engine.name, engine.variant, batch, threads, round(1e3 * p50, 3), round(1e3 * p95, 3), batch / p50, len(times)
    )


def _batch(pictures: Sequence[ImageArray], count: int) -> npt.NDArray[np.uint8]:
    return np.stack([pictures[i % len(pictures)] for i in range(count)])
