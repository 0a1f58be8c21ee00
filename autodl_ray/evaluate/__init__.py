"""How good the exported model is, measured once on the sealed test split."""

from autodl_ray.evaluate.report import EvaluationReport
from autodl_ray.evaluate.stage import EvaluateInputs, run

__all__ = ["EvaluateInputs", "EvaluationReport", "run"]
