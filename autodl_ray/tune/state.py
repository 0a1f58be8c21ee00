"""The state of a sweep, folded from the events of its journal; nothing else is remembered."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from autodl_ray.tune.contracts import GO_ON, Mode, Observed, Scheduler, Verdict

__all__ = ["SweepState", "TrialState", "trial_id"]

TrialStatus = Literal["running", "paused", "finished", "stopped", "failed", "lost"]


def trial_id(number: int) -> str:
    """Return the id of trial ``number``."""
    return f"t{number:04d}"


@dataclass
class TrialState:
    """One trial, as far as it came."""

    number: int
    params: dict[str, Any]
    status: TrialStatus = "running"
    curve: list[dict[str, Any]] = field(default_factory=list)
    losses: int = 0
    reason: str = ""

    @property
    def id(self) -> str:
        """Its name."""
        return trial_id(self.number)

    @property
    def has_ended(self) -> bool:
        """Whether it will not be trained any further."""
        return self.status not in ("running", "paused")

    def is_whole(self, epochs: int) -> bool:
        """Whether it did all of ``epochs``, or the fewer that it planned because of the deadline."""
        planned = int(self.curve[-1].get("epochs_planned", epochs)) if self.curve else epochs
        return self.epochs >= min(epochs, planned)

    @property
    def epochs(self) -> int:
        """The last epoch that was reported."""
        return int(self.curve[-1]["epoch"]) if self.curve else 0


@dataclass
class SweepState:
    """All trials so far.

    What proposers and schedulers are told (:meth:`observed`) is kept and brought up to date trial by trial: a report
    costs the same at the thousandth trial as at the first.

    Attributes:
        metric: What is compared.
        mode: Whether it is to fall or to rise.
        scheduler: Told every report; None: no trial is stopped or paused.
        trials: By id, in the order of proposal.
        open: Those that are running or paused.
        verdicts: What the scheduler decided at a trial's last report, and the journal has not yet seen done.
    """

    metric: str
    mode: Mode
    scheduler: Scheduler | None
    trials: dict[str, TrialState] = field(default_factory=dict)
    open: dict[str, TrialState] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    _observed: list[Observed] = field(default_factory=list)
    _best: tuple[float, int, int] | None = None

    def fold(self, events: Iterable[Mapping[str, Any]]) -> SweepState:
        """Apply events in order."""
        for event in events:
            self.apply(event)
        return self

    def apply(self, event: Mapping[str, Any]) -> None:
        """Apply one event; unknown kinds (of a later minor version) change nothing."""
        kind = event["event"]
        if kind == "proposed":
            trial = TrialState(event["number"], dict(event["params"]))
            self.trials[trial.id] = self.open[trial.id] = trial
            self._observed.append(Observed(trial.number, trial.params, "running", (), None))
        elif kind == "epoch":
            self._epoch(self.trials[event["trial"]], dict(event["metrics"]))
        elif kind == "lost":
            self.trials[event["trial"]].losses += 1
        elif kind == "extended":
            self._reopen()
        elif kind == "paused":
            self._turn(self.trials[event["trial"]], "paused", event.get("reason", ""))
        elif kind == "resumed":
            self._turn(self.trials[event["trial"]], "running", "")
        elif kind == "ended":
            self._turn(self.trials[event["trial"]], event["status"], event.get("reason", ""))

    def best_row(self, trial: TrialState) -> dict[str, Any] | None:
        """Return what the trial reported at its best epoch (the earliest of equals); NaN is never best."""
        rows = [r for r in trial.curve if not math.isnan(float(r.get(self.metric, math.nan)))]
        if not rows:
            return None
        return max(rows, key=lambda row: (self._sign * float(row[self.metric]), -int(row["epoch"])))

    def value(self, trial: TrialState) -> float | None:
        """Return the trial's best value so far."""
        return self._observed[trial.number].value

    def best(self) -> TrialState | None:
        """Return the trial with the best checkpoint; of equals that after the fewest epochs, then the earlier one."""
        return None if self._best is None else self.trials[trial_id(-self._best[2])]

    def best_ids(self, number: int) -> tuple[str, ...]:
        """Return the ids of the ``number`` best trials, best first; only one of them costs nothing to find."""
        best = self.best()
        if number <= 1 or best is None:
            return () if best is None else (best.id,)
        known = [(self._sign * o.value, -o.number) for o in self._observed if o.value is not None]
        others = (trial_id(-place) for _, place in sorted(known, reverse=True) if trial_id(-place) != best.id)
        return (best.id, *itertools.islice(others, number - 1))

    def observed(self) -> Sequence[Observed]:
        """Return what a proposer is told, in the order of proposal; not to be kept, it grows."""
        return self._observed

    @property
    def _sign(self) -> float:
        return 1.0 if self.mode == "max" else -1.0

    def _reopen(self) -> None:
        """Let finished trials go on: there are more epochs to do than they had planned."""
        for trial in self.trials.values():
            if trial.status == "finished":
                trial.curve[-1].pop("epochs_planned", None)
                self.open[trial.id] = trial
                self._turn(trial, "running", "")

    def _turn(self, trial: TrialState, status: TrialStatus, reason: str) -> None:
        trial.status, trial.reason = status, reason
        self.verdicts.pop(trial.id, None)
        if trial.has_ended:
            self.open.pop(trial.id, None)
        self._observe(trial)

    def _epoch(self, trial: TrialState, metrics: dict[str, Any]) -> None:
        if trial.curve and int(metrics["epoch"]) <= trial.epochs:  # made again: its checkpoint was damaged or is gone
            others = [row for row in trial.curve if row["epoch"] != metrics["epoch"]]
            trial.curve = sorted([*others, metrics], key=lambda row: int(row["epoch"]))
            self._observe(trial)
            return  # it was judged then; the scheduler has let it go on since
        trial.curve.append(metrics)
        seen = self._observe(trial)
        verdict = self._judge(seen, metrics)
        if verdict.kind == "go_on":
            self.verdicts.pop(trial.id, None)
        else:
            self.verdicts[trial.id] = verdict

    def _judge(self, seen: Observed, metrics: Mapping[str, Any]) -> Verdict:
        if self.scheduler is None:
            return GO_ON
        if math.isnan(float(metrics.get(self.metric, math.nan))):
            return Verdict("stop", f"its {self.metric} is not a number")
        return self.scheduler.report(seen, self._observed)

    def _observe(self, trial: TrialState) -> Observed:
        """Bring up to date what is told of a trial."""
        rows = ((int(r["epoch"]), float(r.get(self.metric, math.nan))) for r in trial.curve)
        values = tuple((e, v) for e, v in rows if not math.isnan(v))
        best = max(((self._sign * v, -e) for e, v in values), default=None)
        status = "failed" if trial.status == "lost" else trial.status
        value = None if best is None else self._sign * best[0]
        seen = self._observed[trial.number] = Observed(trial.number, trial.params, status, values, value)
        if best is not None and (self._best is None or (*best, -trial.number) > self._best):
            self._best = (*best, -trial.number)
        return seen
