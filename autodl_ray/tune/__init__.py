"""The search: proposals, early stopping, the journal that makes it resumable, and the Ray Tune run around them."""

from autodl_ray.tune.leaderboard import leaderboard
from autodl_ray.tune.records import SweepInputs, SweepRun, TrialRecord
from autodl_ray.tune.stage import run

__all__ = ["SweepInputs", "SweepRun", "TrialRecord", "leaderboard", "run"]
