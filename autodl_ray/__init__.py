"""From a folder of data to a tuned, honestly evaluated, quantized model behind an autoscaled HTTP endpoint.

The parts are imported when they are first used, so that ``import autodl_ray`` costs nothing.

Example:
    >>> import autodl_ray
    >>> spec = autodl_ray.ExperimentSpec(data=autodl_ray.DataSpec(path="photos/"))
    >>> spec.budget_s
    600.0
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # as `typing` has it, without its import
if TYPE_CHECKING:
    from typing import Any

    from autodl_ray.artifacts import Store, open_artifact
    from autodl_ray.errors import AutoDLError
    from autodl_ray.models.predictor import Predictor
    from autodl_ray.pipeline.run import run
    from autodl_ray.spec import DataSpec, ExperimentSpec, load_spec

__all__ = [
    "AutoDLError",
    "DataSpec",
    "ExperimentSpec",
    "Predictor",
    "Store",
    "__version__",
    "load_spec",
    "open_artifact",
    "run",
]

__version__ = "0.1.0"

# onnxruntime's wheels report usage to Microsoft unless this is set before they are imported: nothing is sent from here.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "AutoDLError": "autodl_ray.errors",
    "DataSpec": "autodl_ray.spec",
    "ExperimentSpec": "autodl_ray.spec",
    "Predictor": "autodl_ray.models.predictor",
    "Store": "autodl_ray.artifacts",
    "load_spec": "autodl_ray.spec",
    "open_artifact": "autodl_ray.artifacts",
    "run": "autodl_ray.pipeline.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autodl_ray' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
