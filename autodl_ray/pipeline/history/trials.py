"""The trials of one sweep as its journal tells them, or its artifact where there is no journal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from autodl_ray.pipeline.history.files import FileProblem, read_events, read_object, read_rows

__all__ = ["SweepHistory", "TrialHistory", "TrialStep", "read_sweep"]


@dataclass(frozen=True)
class TrialStep:
    """One thing that happened to a trial: it was begun, trained an epoch, paused, resumed, lost or ended.

    Attributes:
        kind: The event's name in the journal.
        epoch: The last epoch that was reported when it happened.
        detail: Why; empty where nobody said.
    """

    kind: str
    epoch: int
    detail: str = ""


@dataclass
class TrialHistory:
    """One trial, as far as it came.

    Attributes:
        id: ``t0000``, ``t0001``, … in the order of proposal.
        params: Its settings.
        status: ``running``, ``paused``, ``finished``, ``stopped``, ``failed`` or ``lost``.
        reason: Why it was stopped or failed.
        curve: What was reported, by epoch, ascending.
        steps: What was decided about it, in order (without its epochs).
    """

    id: str
    params: dict[str, Any]
    status: str = "running"
    reason: str = ""
    curve: list[dict[str, Any]] = field(default_factory=list)
    steps: list[TrialStep] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """The last epoch that was reported; 0 before the first."""
        return int(self.curve[-1]["epoch"]) if self.curve else 0

    @property
    def seconds(self) -> float:
        """Seconds of training and validation."""
        return round(sum(float(row.get("epoch_s") or 0.0) for row in self.curve), 3)

    def best_row(self, metric: str, mode: Literal["min", "max"]) -> dict[str, Any] | None:
        """Return what was reported at the best epoch (the earliest of equals); None without a finite value."""
        rows = [row for row in self.curve if _is_finite(row.get(metric))]
        sign = 1.0 if mode == "max" else -1.0
        return max(rows, key=lambda row: (sign * float(row[metric]), -int(row["epoch"])), default=None)

    def value(self, metric: str, mode: Literal["min", "max"], *, until: int | None = None) -> float | None:
        """Return the best value, of the first ``until`` epochs where that is given."""
        row = TrialHistory(
            self.id, self.params, curve=[r for r in self.curve if until is None or int(r["epoch"]) <= until]
        ).best_row(metric, mode)
        return None if row is None else float(row[metric])


@dataclass(frozen=True)
class SweepHistory:
    """One sweep of a run (or its final training: a sweep of one trial).

    Attributes:
        key: Its name in the run: ``sweep``, ``train``, ``repeat``.
        metric: What is compared.
        mode: Whether it is to fall or to rise.
        epochs: Of a whole trial; 0 when it is not known.
        space: The ranges, by field, as in the spec.
        trials: In the order of proposal.
        problem: What is wrong with its files; None: nothing.
    """

    key: str
    metric: str
    mode: Literal["min", "max"]
    epochs: int
    space: Mapping[str, Mapping[str, Any]]
    trials: tuple[TrialHistory, ...]
    problem: str | None = None

    def ranked(self) -> list[TrialHistory]:
        """Return the trials, best first; the earlier of equals first, those without a value last."""
        sign = -1.0 if self.mode == "max" else 1.0
        values = {trial.id: trial.value(self.metric, self.mode) for trial in self.trials}

        def place(trial: TrialHistory) -> tuple[bool, float, str]:
            value = values[trial.id]
            return (value is None, 0.0 if value is None else sign * value, trial.id)

        return sorted(self.trials, key=place)


def read_sweep(folder: Path, key: str) -> SweepHistory | None:
    """Return the sweep ``key`` of the run in ``folder``; None when the run has none.

    Where the journal is damaged, the artifact tells what is missing.
    """
    events, problem = read_events(folder / f"{key}.journal.jsonl")
    meta, rows = {}, None
    try:
        meta = (read_object(folder / key / "manifest.json") or {}).get("meta", {})
        if not events or problem:
            rows = read_rows(folder / key / "trials.json")
    except FileProblem as found:
        problem = problem or str(found)
    if not events and rows is None and problem is None:
        return None
    identity: Mapping[str, Any] = events[0].get("identity", {}) if events else {}
    trials: list[TrialHistory] = []
    try:
        trials = _from_rows(rows) if rows is not None else _from_events(events)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # JSON, but not what a sweep writes
        problem = f"{key}: its events are not understood: {type(error).__name__} {error}"
    metric = meta.get("metric") or identity.get("tune", {}).get("metric") or "accuracy"
    metric = "accuracy" if metric == "auto" else str(metric)
    return SweepHistory(
        key=key,
        metric=metric,
        mode="min" if metric == "loss" else "max",
        epochs=int(identity.get("epochs") or 0),
        space=identity.get("param_space") or {},
        trials=tuple(trials),
        problem=problem,
    )


def _from_rows(rows: Iterable[Mapping[str, Any]]) -> list[TrialHistory]:
    return [
        TrialHistory(
            id=str(row.get("id", "?")),
            params=dict(row.get("params") or {}),
            status=str(row.get("status", "?")),
            reason=str(row.get("reason") or ""),
            curve=list(row.get("curve") or ()),
        )
        for row in rows
    ]


def _from_events(events: Iterable[Mapping[str, Any]]) -> list[TrialHistory]:
    trials: dict[str, TrialHistory] = {}
    for event in events:
        kind = event["event"]
        if kind == "proposed":
            number = int(event["number"])
            trials[f"t{number:04d}"] = TrialHistory(f"t{number:04d}", dict(event["params"]))
            continue
        trial = trials.get(str(event.get("trial", "")))
        if trial is None:
            continue  # of the sweep, or of a later version
        if kind == "epoch":
            _report(trial, dict(event["metrics"]))
            continue
        detail = str(event.get("reason") or "")
        trial.steps.append(TrialStep(str(event.get("status") or kind), trial.epochs, detail))
        if kind == "ended":
            trial.status, trial.reason = str(event["status"]), detail
        elif kind in ("paused", "resumed"):
            trial.status, trial.reason = ("paused", detail) if kind == "paused" else ("running", "")
    return list(trials.values())


def _report(trial: TrialHistory, metrics: dict[str, Any]) -> None:
    epoch = int(metrics["epoch"])
    if trial.curve and int(trial.curve[-1]["epoch"]) >= epoch:  # done again after a kill: the later report counts
        trial.curve = [row for row in trial.curve if int(row["epoch"]) != epoch]
    trial.curve.append(metrics)
    trial.curve.sort(key=lambda row: int(row["epoch"]))


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
