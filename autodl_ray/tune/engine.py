"""Decides what a sweep does next, and writes every decision and report into the journal; knows nothing of Ray."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autodl_ray.spec.sections import Domain
from autodl_ray.tune.contracts import Proposer
from autodl_ray.tune.journal import Journal
from autodl_ray.tune.proposers import propose_distinct
from autodl_ray.tune.schedulers import Goal
from autodl_ray.tune.space import fingerprint
from autodl_ray.tune.state import SweepState, TrialState, trial_id

__all__ = ["Engine"]

_ATTEMPTS = 2
_TIMED_EPOCHS = 64


@dataclass
class Engine:
    """The one owner of a sweep's state.

    Attributes:
        state: As folded from the journal so far.
        journal: Where everything that happens is written, before it counts.
        proposer: Where settings come from; None: only ``first`` are tried.
        space: The ranges.
        first: Settings that are tried first: the defaults, then those that were handed in.
        num_samples: Trials in all.
        epochs: Epochs of a whole trial.
        deadline: Unix time after which no epoch can be made.
        goal: What ends the sweep before its trials are used up; None: nothing does.
        active: Trials that are being trained by this process right now.
        exhausted: Whether there are no settings left to propose.
        over: Why the sweep is over before its trials are used up; empty: it is not.
    """

    state: SweepState
    journal: Journal
    proposer: Proposer | None
    space: Mapping[str, Domain]
    first: tuple[Mapping[str, Any], ...]
    num_samples: int
    epochs: int
    deadline: float | None = None
    goal: Goal | None = None
    active: set[str] = field(default_factory=set)
    exhausted: bool = False
    over: str = ""
    _epoch_s: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMED_EPOCHS))

    def next_trial(self) -> TrialState | None:
        """Return the trial to train next: one that was begun and not ended, one that was paused, or a new one.

        The trial counts as active until it is paused, :meth:`ended`, :meth:`failed`, :meth:`lost` or :meth:`let_go`.
        When there is none and none is active, the sweep is done: those that are still paused are ended.
        """
        self._look_at_goal()
        trial = next((t for t in self.state.open.values() if t.status == "running" and t.id not in self.active), None)
        if trial is None and not self.over:
            trial = self._thawed_or_new()
        if trial is not None:
            self.active.add(trial.id)
        elif not self.active:
            self._end_paused()
        return trial

    def report(self, trial: str, metrics: Mapping[str, Any]) -> bool:
        """Take the report of an epoch.

        Returns:
            Whether the trial goes on; a trial that does not is ended or paused here.
        """
        self._write({"event": "epoch", "trial": trial, "metrics": dict(metrics)})
        if "epoch_s" in metrics:
            self._epoch_s.append(float(metrics["epoch_s"]))
        self._look_at_goal()
        if self.state.trials[trial].is_whole(self.epochs):
            return True
        if self.over:
            self.ended(trial, reason=self.over)
            return False
        return trial not in self.state.verdicts or self._carry_out(trial)

    def ended(self, trial: str, *, reason: str = "the time was up") -> None:
        """Take note that a trial returned: whole, or early for ``reason``."""
        self.active.discard(trial)
        if self.state.trials[trial].status != "running":
            return
        whole = self.state.trials[trial].is_whole(self.epochs)
        self._end(trial, "finished" if whole else "stopped", "" if whole else reason)

    def let_go(self, trial: str) -> None:
        """Take note that a trial was interrupted by the user; it goes on when the sweep is run again."""
        self.active.discard(trial)

    def failed(self, trial: str, reason: str) -> None:
        """Take note that the user's code raised."""
        self.active.discard(trial)
        if self.state.trials[trial].status == "running":
            self._end(trial, "failed", reason)

    def lost(self, trial: str, reason: str) -> None:
        """Take note that the process of a trial died; it is begun once more, from its checkpoint."""
        self.active.discard(trial)
        if self.state.trials[trial].status != "running":
            return
        self._write({"event": "lost", "trial": trial, "reason": reason})
        if self.state.trials[trial].losses >= _ATTEMPTS:
            self._end(trial, "lost", reason)

    def settle(self) -> None:
        """After a resume: carry out what was decided but not written before the kill."""
        self._look_at_goal()
        for trial in list(self.state.open.values()):
            if trial.status == "running" and trial.is_whole(self.epochs):
                self._end(trial.id, "finished", "")
            elif self.over:
                self._end(trial.id, "stopped", self.over)
            elif trial.id in self.state.verdicts:
                self._carry_out(trial.id)

    def close(self) -> None:
        """At the deadline: end the trials that were begun and can make no further epoch."""
        for trial in list(self.state.open.values()):
            self._end(trial.id, "stopped", self.over or "the time was up")

    @property
    def looks(self) -> tuple[int, ...] | None:
        """The epochs after which a trial may be paused or ended; None: after any."""
        if self.goal is not None and self.goal.is_set:
            return None
        return () if self.state.scheduler is None else self.state.scheduler.looks

    @property
    def time_is_up(self) -> bool:
        """Whether a trial that starts now could not make one epoch before the deadline."""
        if self.deadline is None:
            return False
        return time.time() + (statistics.median(self._epoch_s) if self._epoch_s else 0.0) >= self.deadline

    @property
    def is_done(self) -> bool:
        """Whether every trial has ended and no further one will be proposed."""
        if self.state.open:
            return False
        return bool(self.over) or self.exhausted or len(self.state.trials) >= self.num_samples

    def _thawed_or_new(self) -> TrialState | None:
        """Let the scheduler choose between the paused trials and a new one."""
        made: list[Mapping[str, Any] | None] = []

        def candidate() -> Mapping[str, Any] | None:
            if not made:
                made.append(self._candidate())
            return made[0]

        scheduler = self.state.scheduler
        if scheduler is not None and any(t.status == "paused" for t in self.state.open.values()):
            number = scheduler.thaw(self.state.observed(), candidate)
            if number is not None:
                assert self.state.trials[trial_id(number)].status == "paused", f"trial {number} is not paused"
                self._write({"event": "resumed", "trial": trial_id(number)})
                return self.state.trials[trial_id(number)]
        params = candidate()
        if params is None:
            return None
        self._write({"event": "proposed", "number": len(self.state.trials), "params": dict(params)})
        return next(reversed(self.state.trials.values()))

    def _candidate(self) -> Mapping[str, Any] | None:
        number = len(self.state.trials)
        if number >= self.num_samples or self.exhausted:
            return None
        params = self._params(number)
        self.exhausted = params is None
        return params

    def _params(self, number: int) -> Mapping[str, Any] | None:
        if number < len(self.first):  # else all of them are known
            seen = {fingerprint(t.params) for t in self.state.trials.values()}
            for params in self.first:
                if fingerprint(params) not in seen:
                    return params
        if self.proposer is None or not self.space:
            return None
        return propose_distinct(self.proposer, self.space, number, self.state.observed())

    def _carry_out(self, trial: str) -> bool:
        """Do what the scheduler decided; return whether the trial goes on (it does not)."""
        self.active.discard(trial)
        verdict, epoch = self.state.verdicts[trial], self.state.trials[trial].epochs
        if verdict.kind == "pause":
            self._write({"event": "paused", "trial": trial, "reason": verdict.reason})
        else:
            why = f" ({verdict.reason})" if verdict.reason else ""
            self._end(trial, "stopped", f"the scheduler, after epoch {epoch}{why}")
        return False

    def _look_at_goal(self) -> None:
        if self.goal is not None and not self.over:
            self.over = self.goal.reached(self.state.observed()) or ""

    def _end_paused(self) -> None:
        for trial in list(self.state.open.values()):
            if trial.status == "paused":
                reason = f"paused by the scheduler at epoch {trial.epochs}; others were better"
                self._end(trial.id, "stopped", self.over or reason)

    def _end(self, trial: str, status: str, reason: str) -> None:
        self._write({"event": "ended", "trial": trial, "status": status, "reason": reason})

    def _write(self, event: Mapping[str, Any]) -> None:
        self.journal.append(event)
        self.state.apply(event)
