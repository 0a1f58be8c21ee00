"""The thread that looks at the machine about once a second and writes what was gathered meanwhile."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from autodl_ray.train.telemetry.config import LogConfig
from autodl_ray.train.telemetry.rows import EPOCHS, STEPS, Row, append_rows, cut_from
from autodl_ray.train.telemetry.system import SystemSampler

__all__ = ["MAX_STEP_ROWS", "Writer"]

MAX_STEP_ROWS = 2000
"""More rows than this are thinned to half, where the clock decides about them."""

_FIRST_LOOK_S, _EVERY_S = 0.25, 1.0


class Writer:
    """Takes rows at once, writes them within a second; the thread begins with the first step.

    Args:
        folder: Where the files lie.
        config: What else is wanted.
        training: Folder of the training, whose disk is watched.
        device: Of the training.
    """

    def __init__(self, folder: Path, config: LogConfig, *, training: Path, device: str) -> None:
        self.notes: list[str] = []
        self._folder, self._config, self._training, self._device = folder, config, training, device
        self._steps: deque[Row] = deque()
        self._epochs: deque[Row] = deque()
        self._latest: dict[str, float] = {}
        self._seen: dict[str, list[float]] = {}
        self._first_step: int | None = None
        self._begun_epochs = False
        self._count = 0
        self._works = True
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, first_step: int) -> None:
        """Start; rows from ``first_step`` on, of an attempt that was killed, are removed."""
        self._first_step = first_step
        self._thread = threading.Thread(target=self._run, name="autodl-telemetry", daemon=True)
        self._thread.start()

    def put_step(self, row: Row) -> bool:
        """Keep a step's row with the latest facts of the machine; whether rows should come half as often from now."""
        self._steps.append({**row, **self._latest})
        self._count += 1
        if self._config.every_steps is None and self._count >= MAX_STEP_ROWS:
            self._count //= 2
            return True
        return False

    def put_epoch(self, row: Row) -> None:
        """Keep an epoch's row."""
        self._epochs.append(row)

    def epoch_facts(self, averaged: Sequence[str]) -> dict[str, float]:
        """Return what was seen of the machine since the last call: the mean of ``averaged``, else the largest."""
        seen, self._seen = self._seen, {}
        if not seen:
            return dict(self._latest)
        facts = {name: sum(v) / len(v) if name in averaged else max(v) for name, v in seen.items()}
        return {name: round(value, 3) for name, value in facts.items()}

    def close(self) -> None:
        """Write the rest and end the thread."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        elif self._epochs:
            self._write()

    def _run(self) -> None:
        started = time.monotonic()
        sampler: SystemSampler | None = None
        wait = _FIRST_LOOK_S
        while not self._end.wait(wait):
            if sampler is None:
                sampler = SystemSampler(self._training, self._device)  # shares of time are of what comes from here on
            else:
                self._look(sampler)
            self._write()
            wait = _EVERY_S if time.monotonic() - started > _EVERY_S else _FIRST_LOOK_S
        self._write()
        if sampler is not None:
            sampler.close()

    def _look(self, sampler: SystemSampler) -> None:
        facts = sampler.sample()
        seen = self._seen
        for name, value in facts.items():
            seen.setdefault(name, []).append(value)
        self._latest = {name: round(value, 3) for name, value in facts.items()}

    def _write(self) -> None:
        if not self._works:
            return
        try:
            self._write_rows()
        except OSError as error:
            self._works = False
            self.notes.append(f"live metrics are no longer written: {error}")

    def _write_rows(self) -> None:
        steps, epochs = _taken(self._steps), _taken(self._epochs)
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._first_step is not None:
            there = cut_from(self._folder / STEPS, "step", self._first_step)
            self._first_step = None
            self._count += there
        if epochs and not self._begun_epochs:
            cut_from(self._folder / EPOCHS, "epoch", int(epochs[0]["epoch"]))
            self._begun_epochs = True
        append_rows(self._folder / STEPS, steps)
        append_rows(self._folder / EPOCHS, epochs)


def _taken(rows: deque[Row]) -> list[Row]:
    return [rows.popleft() for _ in range(len(rows))]
