"""Between Tune's loop and the engine: places where trials are trained one after the other, and what they are told.

A *place* is one trial of Ray Tune: a process that is handed trial after trial of ours. To end a trial of Tune and begin
another costs 0.1 s, also when the process is used again, and on a busy machine Tune then gives the process up.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from autodl_ray.runtime.resources import Shares
from autodl_ray.runtime.stop import StopFlag
from autodl_ray.tune.engine import Engine
from autodl_ray.tune.state import TrialState

__all__ = ["FINISHED", "Answer", "Bridge", "TrialCall"]

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
        params: What it was proposed with, to be shown with its live metrics.
        looks: Epochs after which it may be paused or ended; None: after any.
    """

    trial: str
    settings: Any
    folder: Path
    known_epochs: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    looks: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Answer:
    """What a place is told after it said something.

    Attributes:
        kind: ``go_on`` with the trial; ``train`` the next one, ``call``; ``wait`` and ask again; ``end``.
        call: The next trial.
    """

    kind: Literal["go_on", "train", "wait", "end"]
    call: TrialCall | None = None


class Bridge:
    """What searcher, scheduler, ticker and stopper share; all of them are called by Tune's one loop."""

    def __init__(
        self,
        engine: Engine,
        settings: Callable[[Mapping[str, Any]], Any],
        folder: Path,
        shares: Shares,
        stop: StopFlag,
        *,
        on_tick: Callable[[], None],
        on_end: Callable[[TrialState], None],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.folder = folder
        self.shares = shares
        self.say = say
        self.stop = stop
        self.on_tick = on_tick
        self.on_end = on_end
        self.places: dict[str, str | None] = {}
        self.error: BaseException | None = None
        self._ended: list[TrialState] = []
        self._ticked = 0.0
        self._stopping_since: float | None = None

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Leave nothing in a pickle: Tune pickles its parts for a restore that the journal makes needless."""
        return object, ()

    def open(self, place: str) -> TrialCall | str | None:
        """Open a place with its first trial; None: not now; ``FINISHED``: never again."""
        if self.error is not None:
            return FINISHED
        if len(self.places) >= self.shares.at_once:
            return None
        call = self._next(place)
        if call is None and not self.engine.active:
            return FINISHED
        return call

    def answer(
        self,
        place: str,
        row: Mapping[str, Any],
        *,
        before: Sequence[Mapping[str, Any]] = (),
        put: Callable[[Answer], None] = lambda _: None,
    ) -> Answer:
        """Take what a place says; an error of ours is kept, and ends the place.

        Args:
            place: Which.
            row: Of an epoch (``epoch``, …), of an error of the user's code (``failed``, ``traceback``), ``done`` when
                a trial returned, or ``idle`` when it was told to wait.
            before: Rows of epochs that were held back until now.
            put: Called with the answer as soon as all that led to it is on the disk.
        """
        answer = Answer("end")
        with self.guarded():
            with self.engine.journal.together():
                made = self._answer(place, [*before, row])
            answer = made
        put(answer)
        with self.guarded():
            self._tell_ends()
        return answer

    def _answer(self, place: str, rows: Sequence[Mapping[str, Any]]) -> Answer:
        going = True
        for row in rows:
            going = "epoch" in row and self._goes_on(place, row)
            if "failed" in row:
                self._failed(place, row)
            elif "done" in row:
                self._returned(place)
            self._look_at_shares(row)
            if not going:  # what it did after the epoch that ended it is not told to anyone
                break
        return Answer("go_on") if going else self._further(place)

    def _further(self, place: str) -> Answer:
        """Say what a place does that trains nothing now."""
        if len(self.places) > self.shares.at_once:
            return Answer("end")
        call = self._next(place)
        if call is not None:
            return Answer("train", call)
        if self.error is None and self.engine.active and not (self.stop.is_set() or self.engine.time_is_up):
            return Answer("wait")
        return Answer("end")

    def left(self, place: str) -> None:
        """Take note that a place is no more: it was told to end, or was ended from outside."""
        self._returned(place)
        self.places.pop(place, None)
        self._tell_ends()

    def died(self, place: str, reason: str) -> None:
        """Take note that the process of a place is gone."""
        trial = self.places.pop(place, None)
        if trial is None or trial not in self.engine.active:
            return
        if self.is_late:
            self.engine.let_go(trial)
            return
        self.engine.lost(trial, reason)
        self._note_end(trial)
        self._tell_ends()

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

    def _look_at_shares(self, row: Mapping[str, Any]) -> None:
        line = self.shares.seen(row)
        if line is not None and not self.engine.is_done:
            self.say(line)

    def _next(self, place: str) -> TrialCall | None:
        """Take the next trial for a place, if there is one and it may still begin."""
        if self.error is not None or self.stop.is_set() or self.engine.time_is_up:
            return None
        trial = self.engine.next_trial()
        if trial is None:
            return None
        folder = self.folder / trial.id
        try:
            folder.mkdir(parents=True, exist_ok=True)
            settings = self.settings(trial.params)
            call = TrialCall(trial.id, settings, folder, trial.epochs, trial.params, self.engine.looks)
        except BaseException:
            self.engine.let_go(trial.id)
            raise
        self.places[place] = trial.id
        return call

    def _goes_on(self, place: str, row: Mapping[str, Any]) -> bool:
        trial = self.places[place]
        if trial is None or not self.engine.report(trial, row):
            self.places[place] = None
            if trial is not None:
                self._note_end(trial)
            return False
        return True

    def _failed(self, place: str, row: Mapping[str, Any]) -> None:
        trial, self.places[place] = self.places[place], None
        if trial is None:
            return
        (self.folder / trial / "error.txt").write_text(str(row.get("traceback", "")))
        self.engine.failed(trial, str(row["failed"]))
        self._note_end(trial)

    def _returned(self, place: str) -> None:
        """Take note that the trial of a place returned: whole, or early."""
        trial = self.places.get(place)
        if trial is None:
            return
        self.places[place] = None
        whole = self.engine.state.trials[trial].is_whole(self.engine.epochs)
        if (self.stop.is_set() or self.error is not None) and not whole:
            self.engine.let_go(trial)
            return
        self.engine.ended(trial, reason=self.engine.over or "the time was up")
        self._note_end(trial)

    def _note_end(self, trial: str) -> None:
        state = self.engine.state.trials[trial]
        if state.has_ended:
            self._ended.append(state)

    def _tell_ends(self) -> None:
        """Tell of trials that ended; what is not needed of them is deleted, so their ends must be on the disk."""
        while self._ended and self.error is None:
            self.on_end(self._ended.pop(0))
