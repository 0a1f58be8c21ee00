"""The thread that looks at the machine about once a second and writes what was gathered meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autodl_ray.train.telemetry.config import LogConfig
from autodl_ray.train.telemetry.event_files import EventFile, write_events
from autodl_ray.train.telemetry.parquet import METRICS, write_metrics
from autodl_ray.train.telemetry.rows import ABOUT, EPOCHS, STEPS, Row, append_rows, cut_from, thin
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
        facts: Of the training, for ``about.json``.
    """

    def __init__(
        self, folder: Path, config: LogConfig, *, training: Path, device: str, facts: Mapping[str, Any]
    ) -> None:
        self.notes: list[str] = []
        self._folder, self._config, self._training, self._device = folder, config, training, device
        self._about = {"run": config.run, "key": config.key, "trial": config.trial, "params": dict(config.params),
                       **facts, "started": round(time.time(), 3)}  # fmt: skip
        self._steps: deque[Row] = deque()
        self._epochs: deque[Row] = deque()
        self._latest: dict[str, float] = {}
        self._seen: dict[str, list[float]] = {}
        self._first_step = 1
        self._begun = self._begun_epochs = False
        self._count = 0
        self._thin = threading.Event()
        self._works = True
        self._events: EventFile | None = None
        self._began = time.monotonic()
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
            self._thin.set()
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

    def close(self, status: str) -> None:
        """Write the rest, and for a training that lasted some seconds the table; end the thread."""
        if self._thread is None:
            return
        self._about.update(ended=round(time.time(), 3), status=status)
        self._end.set()
        self._thread.join()
        self._thread = None

    @property
    def _is_long(self) -> bool:
        return time.monotonic() - self._began >= self._config.after_s

    def _run(self) -> None:
        sampler: SystemSampler | None = None
        wait = _FIRST_LOOK_S
        while not self._end.wait(wait):
            if sampler is None:
                sampler = SystemSampler(self._training, self._device)  # shares of time are of what comes from here on
            else:
                self._look(sampler)
            self._write(self._write_rows)
            wait = _EVERY_S if time.monotonic() - self._began > _EVERY_S else _FIRST_LOOK_S
        self._write(self._write_rows)
        self._write(self._finish)
        if sampler is not None:
            sampler.close()

    def _look(self, sampler: SystemSampler) -> None:
        facts = sampler.sample()
        seen = self._seen
        for name, value in facts.items():
            seen.setdefault(name, []).append(value)
        self._latest = {name: round(value, 3) for name, value in facts.items()}

    def _write(self, write: Callable[[], None]) -> None:
        """A full disk, or whatever else goes wrong with a log, is said once and ends no training."""
        if not self._works:
            return
        try:
            write()
        except Exception as error:
            self._works = False
            self.notes.append(f"live metrics are no longer written: {type(error).__name__}: {error}")

    def _write_rows(self) -> None:
        steps, epochs = _taken(self._steps), _taken(self._epochs)
        if not self._begun:
            self._begun = True
            self._folder.mkdir(parents=True, exist_ok=True)
            self._count += cut_from(self._folder / STEPS, "step", self._first_step)
            if not self._end.is_set():  # else it is written in a moment, with the end
                self._write_about()
        if epochs and not self._begun_epochs:
            self._begun_epochs = True
            cut_from(self._folder / EPOCHS, "epoch", int(epochs[0]["epoch"]))
        append_rows(self._folder / STEPS, steps)
        append_rows(self._folder / EPOCHS, epochs)
        if self._thin.is_set():
            self._thin.clear()
            thin(self._folder / STEPS)
        self._write_events(steps, epochs)

    def _write_events(self, steps: Sequence[Row], epochs: Sequence[Row]) -> None:
        if not self._config.tensorboard or not self._is_long:
            return
        if self._events is None:  # with everything that is in the two files already
            self._events = write_events(self._folder, params=self._config.params, name=self._config.name)
            return
        for row in steps:
            self._events.step(row)
        for row in epochs:
            self._events.epoch(row)
        self._events.flush()

    def _finish(self) -> None:
        self._write_about()
        if self._events is not None:
            self._events.close()
        if self._is_long:
            write_metrics(self._folder / METRICS, [(self._config.name, self._folder)])

    def _write_about(self) -> None:
        temporary = self._folder / f".{ABOUT}"
        temporary.write_text(json.dumps(self._about, default=str), encoding="utf-8")
        temporary.replace(self._folder / ABOUT)


def _taken(rows: deque[Row]) -> list[Row]:
    return [rows.popleft() for _ in range(len(rows))]
