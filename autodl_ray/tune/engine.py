"""Decides what a sweep does next, and writes every decision and report into the journal; knows nothing of Ray."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autodl_ray.spec.sections import Domain
from autodl_ray.tune.contracts import Proposer
from autodl_ray.tune.journal import Journal
from autodl_ray.tune.proposers import propose_distinct
from autodl_ray.tune.space import fingerprint
from autodl_ray.tune.state import SweepState, TrialState

__all__ = ["Engine"]

_ATTEMPTS = 2


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
        active: Trials that are being trained by this process right now.
    """

    state: SweepState
    journal: Journal
    proposer: Proposer | None
    space: Mapping[str, Domain]
    first: tuple[Mapping[str, Any], ...]
    num_samples: int
    epochs: int
    deadline: float | None = None
    active: set[str] = field(default_factory=set)
    exhausted: bool = False

    def next_trial(self) -> TrialState | None:
        """Return the trial to train next: one that was begun and not ended, else a new one; None: there is none.

        The trial counts as active until :meth:`ended`, :meth:`failed`, :meth:`lost` or :meth:`let_go`.
        """
        trial = next((t for t in self.state.trials.values() if t.status == "running" and t.id not in self.active), None)
        if trial is None:
            trial = self._propose()
        if trial is not None:
            self.active.add(trial.id)
        return trial

    def report(self, trial: str, metrics: Mapping[str, Any]) -> bool:
        """Take the report of an epoch.

        Returns:
            Whether the trial goes on; a trial that does not is ended here.
        """
        self._write({"event": "epoch", "trial": trial, "metrics": dict(metrics)})
        if trial not in self.state.verdicts:
            return True
        self._stop_by_verdict(trial)
        return False

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
        """After a resume: end the trials whose end was decided but not written before the kill."""
        for trial in list(self.state.trials.values()):
            if trial.status != "running":
                continue
            if trial.id in self.state.verdicts:
                self._stop_by_verdict(trial.id)
            elif trial.is_whole(self.epochs):
                self._end(trial.id, "finished", "")

    def close(self) -> None:
        """At the deadline: end the trials that were begun and can make no further epoch."""
        for trial in list(self.state.trials.values()):
            if trial.status == "running":
                self._end(trial.id, "stopped", "the time was up")

    @property
    def time_is_up(self) -> bool:
        """Whether a trial that starts now could not make one epoch before the deadline."""
        if self.deadline is None:
            return False
        seconds = [float(r["epoch_s"]) for t in self.state.trials.values() for r in t.curve if "epoch_s" in r]
        return time.time() + (statistics.median(seconds) if seconds else 0.0) >= self.deadline

    @property
    def is_done(self) -> bool:
        """Whether every trial has ended and no further one will be proposed."""
        if any(t.status == "running" for t in self.state.trials.values()):
            return False
        return self.exhausted or len(self.state.trials) >= self.num_samples

    def _propose(self) -> TrialState | None:
        number = len(self.state.trials)
        if number >= self.num_samples or self.exhausted:
            return None
        params = self._params(number)
        if params is None:
            self.exhausted = True
            return None
        self._write({"event": "proposed", "number": number, "params": dict(params)})
        return next(reversed(self.state.trials.values()))

    def _params(self, number: int) -> Mapping[str, Any] | None:
        seen = {fingerprint(t.params) for t in self.state.trials.values()}
        for params in self.first:
            if fingerprint(params) not in seen:
                return params
        if self.proposer is None or not self.space:
            return None
        return propose_distinct(self.proposer, self.space, number, self.state.observed())

    def _stop_by_verdict(self, trial: str) -> None:
        self.active.discard(trial)
        epoch = self.state.trials[trial].epochs
        self._end(trial, "stopped", f"the scheduler, after epoch {epoch}")

    def _end(self, trial: str, status: str, reason: str) -> None:
        self._write({"event": "ended", "trial": trial, "status": status, "reason": reason})

    def _write(self, event: Mapping[str, Any]) -> None:
        self.journal.append(event)
        self.state.apply(event)
