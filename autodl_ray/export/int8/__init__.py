"""INT8: made rung by rung, measured beside FP32 on this machine and these pictures, kept only where it is better."""

from autodl_ray.export.int8.attempt import estimate_seconds, try_int8
from autodl_ray.export.int8.gate import Decision, Int8Figures, PairedLoss, decide

__all__ = ["Decision", "Int8Figures", "PairedLoss", "decide", "estimate_seconds", "try_int8"]
