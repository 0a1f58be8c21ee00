"""What surrounds the stages: budget, progress, the wish to stop, and Ray."""

from autodl_ray.runtime.clock import Budget
from autodl_ray.runtime.context import Context
from autodl_ray.runtime.progress import Progress, SilentProgress, StageProgress
from autodl_ray.runtime.stop import StopFlag

__all__ = ["Budget", "Context", "Progress", "SilentProgress", "StageProgress", "StopFlag"]
