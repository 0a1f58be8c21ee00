"""What the report shows of the search: its trials, what mattered, the repeats and the limits."""

from __future__ import annotations

from typing import Any

from autodl_ray.errors import StageError
from autodl_ray.pipeline.history.trials import SweepHistory, read_sweep
from autodl_ray.pipeline.state import Run

__all__ = ["search_facts"]

_MOST_TRIALS = 1000
_WORTH_IT = 16
"""An importance of fewer trials says nothing; `autodl runs importance` gives it all the same, with its spread."""
_NEEDED_S = 30.0
"""Optuna is imported and fits its forests within this, on two busy cores."""


def search_facts(run: Run) -> dict[str, Any]:
    """Return the facts of :attr:`EvaluateInputs.search`; {} for a run without a sweep, repeats or limits."""
    facts: dict[str, Any] = {name: run.facts[name] for name in ("repeat", "limits") if name in run.facts}
    sweep = read_sweep(run.context.folder, "sweep")
    if sweep is None or not sweep.trials:
        return facts
    facts |= {
        "metric": sweep.metric,
        "mode": sweep.mode,
        "space": dict(sweep.space),
        "trials": [
            {
                "trial": trial.id,
                "params": trial.params,
                "value": trial.value(sweep.metric, sweep.mode),
                "status": trial.status,
                "epochs": trial.epochs,
            }
            for trial in sweep.trials[:_MOST_TRIALS]
        ],
    }
    return facts | _importance(run, sweep)


def _importance(run: Run, sweep: SweepHistory) -> dict[str, Any]:
    if len(sweep.trials) < _WORTH_IT or run.context.stop.is_set() or run.context.budget.left_s() < 2 * _NEEDED_S:
        return {}
    from autodl_ray.pipeline.history.importance import importance

    try:
        report = importance(sweep, resamples=10, seed=run.spec.seed)
    except StageError:  # every trial alike, or too few with a value: there is nothing to show
        return {}
    return {"importance": report.to_json()["rows"], "notes": list(report.notes)}
