"""What is wanted: the experiment specification, how it is read and how it is written."""

from autodl_ray.spec.load import difference, load_spec, parse_spec, spec_digest, with_overrides
from autodl_ray.spec.render import json_schema, render_spec
from autodl_ray.spec.sections import (
    Choice,
    DataSpec,
    Domain,
    EvaluateSpec,
    ExperimentSpec,
    ExportSpec,
    Float,
    Int,
    LogSpec,
    ModelSpec,
    ServeSpec,
    SplitSpec,
    TrainSpec,
    TuneSpec,
    parse_seconds,
)

__all__ = [
    "Choice",
    "DataSpec",
    "Domain",
    "EvaluateSpec",
    "ExperimentSpec",
    "ExportSpec",
    "Float",
    "Int",
    "LogSpec",
    "ModelSpec",
    "ServeSpec",
    "SplitSpec",
    "TrainSpec",
    "TuneSpec",
    "difference",
    "json_schema",
    "load_spec",
    "parse_seconds",
    "parse_spec",
    "render_spec",
    "spec_digest",
    "with_overrides",
]
