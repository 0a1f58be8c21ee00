"""The state of a sweep, folded from the events of its journal; nothing else is remembered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from autodl_ray.tune.contracts import Observed
from autodl_ray.tune.halving import Halving

__all__ = ["SweepState", "TrialState", "trial_id"]

TrialStatus = Literal["running", "finished", "stopped", "failed", "lost"]


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
    rungs: list[int] = field(default_factory=list)
    losses: int = 0
    reason: str = ""

    @property
    def id(self) -> str:
        """Its name."""
        return trial_id(self.number)

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

    Attributes:
        metric: What is compared.
        mode: Whether it is to fall or to rise.
        halving: The rule that stops trials; None: none is stopped.
        trials: By id, in the order of proposal.
        verdicts: Trials that the rule stopped at their last report.
    """

    metric: str
    mode: Literal["min", "max"]
    halving: Halving | None
    trials: dict[str, TrialState] = field(default_factory=dict)
    verdicts: set[str] = field(default_factory=set)
    _rung_values: dict[int, dict[str, float]] = field(default_factory=dict)

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
            self.trials[trial.id] = trial
        elif kind == "epoch":
            self._epoch(self.trials[event["trial"]], dict(event["metrics"]))
        elif kind == "lost":
            self.trials[event["trial"]].losses += 1
        elif kind == "ended":
            trial = self.trials[event["trial"]]
            trial.status, trial.reason = event["status"], event.get("reason", "")

    def _epoch(self, trial: TrialState, metrics: dict[str, Any]) -> None:
        others_of_it = [row for row in trial.curve if row["epoch"] != metrics["epoch"]]
        trial.curve = sorted([*others_of_it, metrics], key=lambda row: int(row["epoch"]))
        if self.halving is None:
            return
        rung = self.halving.rung_of(int(metrics["epoch"]), trial.rungs)
        if rung is None:
            return
        value = self.value(trial)
        others = self._rung_values.setdefault(rung, {})
        if value is None or not self.halving.goes_on(value, others):
            self.verdicts.add(trial.id)
        others[trial.id] = math.nan if value is None else value
        trial.rungs.append(rung)

    def best_row(self, trial: TrialState) -> dict[str, Any] | None:
        """Return what the trial reported at its best epoch (the earliest of equals); NaN is never best."""
        rows = [r for r in trial.curve if not math.isnan(float(r.get(self.metric, math.nan)))]
        if not rows:
            return None
        sign = 1.0 if self.mode == "max" else -1.0
        return max(rows, key=lambda row: (sign * float(row[self.metric]), -int(row["epoch"])))

    def value(self, trial: TrialState) -> float | None:
        """Return the trial's best value so far."""
        row = self.best_row(trial)
        return None if row is None else float(row[self.metric])

    def best(self) -> TrialState | None:
        """Return the trial with the best value at any epoch (the earlier of equals)."""
        sign = 1.0 if self.mode == "max" else -1.0
        known = [(sign * v, -t.number, t) for t in self.trials.values() if (v := self.value(t)) is not None]
        return max(known)[2] if known else None

    def observed(self) -> list[Observed]:
        """Return what a proposer is told, in the order of proposal."""
        return [self._observed(t) for t in self.trials.values()]

    def _observed(self, trial: TrialState) -> Observed:
        rows = ((int(r["epoch"]), float(r.get(self.metric, math.nan))) for r in trial.curve)
        values = tuple((e, v) for e, v in rows if not math.isnan(v))
        status = "failed" if trial.status == "lost" else trial.status
        return Observed(trial.number, trial.params, status, values, self.value(trial))
