"""Live metrics of a training: rows about once a second, in files that others read while it runs."""

from autodl_ray.train.telemetry.config import LogConfig, StepFacts
from autodl_ray.train.telemetry.norms import WeightWatch, clip_gradients, gradient_norm
from autodl_ray.train.telemetry.recorder import Telemetry

__all__ = ["LogConfig", "StepFacts", "Telemetry", "WeightWatch", "clip_gradients", "gradient_norm"]
