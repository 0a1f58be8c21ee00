"""Between Tune's loop and the engine: which trial is next, what a report means, and when waiting has an end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodl_ray.runtime.stop import StopFlag
from autodl_ray.tune.engine import Engine
from autodl_ray.tune.state import TrialState

__all__ = ["FINISHED", "Bridge", "TrialCall"]

FINISHED = "FINISHED"
"""What a searcher of Tune answers when there will be no further trial."""

_STOP_GRACE_S = 3.0
_TICK_S = 0.25


@dataclass(frozen=True)
class TrialCall:
    """One trial, as its process gets it.

    Attributes:
        trial: Its id.
        settings: Its whole configuration, made on the driver, where a mistake can be shown.
        folder: Where it keeps its checkpoint.
        known_epochs: Epochs that the journal knows; its checkpoint may be one ahead.
    """

    trial: str
    settings: Any
    folder: Path
    known_epochs: int = 0


class Bridge:
    """What searcher, scheduler, ticker and stopper share; all of them are called by Tune's one loop."""

    def __init__(
        self,
        engine: Engine,
        settings: Callable[[Mapping[str, Any]], Any],
        folder: Path,
        trials_at_once: int,
        stop: StopFlag,
        *,
        on_tick: Callable[[], None],
        on_end: Callable[[TrialState], None],
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.folder = folder
        self.trials_at_once = trials_at_once
        self.stop = stop
        self.on_tick = on_tick
        self.on_end = on_end
        self.names: dict[str, str] = {}
        self.error: BaseException | None = None
        self._ticked = 0.0
        self._stopping_since: float | None = None

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Leave nothing in a pickle: Tune pickles its parts for a restore that the journal makes needless."""
        return object, ()

    def call(self, tune_id: str) -> TrialCall | str | None:
        """Return the next trial; None: not now; ``FINISHED``: never again."""
        engine = self.engine
        if self.error is not None:
            return FINISHED
        if self.stop.is_set() or engine.time_is_up:
            return None if engine.active else FINISHED
        if len(engine.active) >= self.trials_at_once:
            return None
        trial = engine.next_trial()
        if trial is None:
            return None if engine.active else FINISHED
        self.names[tune_id] = trial.id
        folder = self.folder / trial.id
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return TrialCall(trial.id, self.settings(trial.params), folder, trial.epochs)
        except BaseException:
            engine.let_go(trial.id)
            raise

    def result(self, tune_id: str, row: Mapping[str, Any]) -> bool:
        """Take what a trial reported; return whether it goes on."""
        trial = self.names[tune_id]
        if "failed" in row:
            (self.folder / trial / "error.txt").write_text(str(row.get("traceback", "")))
            self.engine.failed(trial, str(row["failed"]))
            self.ended(trial)
            return False
        if "epoch" not in row:
            return True
        goes_on = self.engine.report(trial, row)
        if self.engine.state.trials[trial].has_ended:
            self.ended(trial)
        return goes_on

    def complete(self, tune_id: str) -> None:
        """Take note that a trial's function returned."""
        trial = self.names[tune_id]
        if trial not in self.engine.active:
            return
        whole = self.engine.state.trials[trial].is_whole(self.engine.epochs)
        if self.stop.is_set() and not whole:
            self.engine.let_go(trial)
            return
        self.engine.ended(trial, reason=self.engine.over or "the time was up")
        self.ended(trial)

    def died(self, tune_id: str, reason: str) -> None:
        """Take note that a trial's process is gone."""
        trial = self.names[tune_id]
        if trial not in self.engine.active:
            return
        if self.is_late:
            self.engine.let_go(trial)
            return
        self.engine.lost(trial, reason)
        if self.engine.state.trials[trial].has_ended:
            self.ended(trial)

    def ended(self, trial: str) -> None:
        """Tell the stage that a trial has ended."""
        self.on_end(self.engine.state.trials[trial])

    def tick(self) -> None:
        """Let the stage show progress, not too often."""
        if time.monotonic() - self._ticked >= _TICK_S:
            self._ticked = time.monotonic()
            self.on_tick()

    @property
    def is_late(self) -> bool:
        """Whether what still runs is ended from outside.

        It is when the sweep is over, and when the trials had their time to end by themselves after the stop was asked
        for, or after the deadline.
        """
        if self.engine.over:
            return True
        deadline = self.engine.deadline
        over = self.error is not None or self.stop.is_set() or (deadline is not None and time.time() >= deadline)
        if not over:
            self._stopping_since = None
            return False
        if self._stopping_since is None:
            self._stopping_since = time.monotonic()
        return time.monotonic() - self._stopping_since >= _STOP_GRACE_S

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Keep an error of ours (a full disk) for the stage: Tune would log and swallow it."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error
