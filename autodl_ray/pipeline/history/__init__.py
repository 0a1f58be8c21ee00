"""The runs of a store, read from their files: no Ray, no torch, and nothing is written."""

from autodl_ray.pipeline.history.runs import RunHistory, RunSummary, list_runs, open_run
from autodl_ray.pipeline.history.trials import SweepHistory, TrialHistory, TrialStep, read_sweep

__all__ = [
    "RunHistory",
    "RunSummary",
    "SweepHistory",
    "TrialHistory",
    "TrialStep",
    "list_runs",
    "open_run",
    "read_sweep",
]
