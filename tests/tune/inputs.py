"""Inputs of a sweep for tests that train nothing."""

from __future__ import annotations

from typing import Any

from autodl_ray.images import Preprocess
from autodl_ray.spec import Float, TrainSpec
from autodl_ray.tune.records import SweepInputs


def plain_inputs(**changes: Any) -> SweepInputs:
    """Make inputs without a source of batches."""
    wanted: dict[str, Any] = {
        "base": TrainSpec(),
        "model": "pixels",
        "preprocess": Preprocess(size=8, fit="stretch", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        "weights": "none",
        "num_classes": 10,
        "source": None,
        "num_samples": 4,
        "epochs": 3,
        "param_space": {"lr": Float(low=1e-4, high=1.0, log=True)},
    }
    return SweepInputs(**{**wanted, **changes})
