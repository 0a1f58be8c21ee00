"""The table of a sweep as data: its trials, best first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Literal

from autodl_ray.tune.records import TrialRecord

__all__ = ["leaderboard", "ranked"]


def ranked(trials: Iterable[TrialRecord], *, metric: str, mode: Literal["min", "max"]) -> list[TrialRecord]:
    """Sort trials by the metric at their best epoch; the earlier of equals first, those without one last."""
    sign = -1.0 if mode == "max" else 1.0
    return sorted(trials, key=lambda t: (not t.metrics, sign * float(t.metrics.get(metric, 0.0)), t.id))


def leaderboard(trials: Iterable[TrialRecord], *, metric: str, mode: Literal["min", "max"]) -> list[dict[str, Any]]:
    """Return one row a trial, best first.

    Returns:
        Rows with ``rank`` (None without a score), ``trial``, the metric's name, ``best_epoch``, ``epochs``,
        ``seconds``, ``status``, ``reason`` and ``params``.
    """
    rows = []
    for rank, trial in enumerate(ranked(trials, metric=metric, mode=mode), start=1):
        facts = asdict(trial)
        rows.append(
            {
                "rank": rank if trial.metrics else None,
                "trial": trial.id,
                metric: trial.metrics.get(metric),
                **{name: facts[name] for name in ("best_epoch", "epochs", "seconds", "status", "reason", "params")},
            }
        )
    return rows
