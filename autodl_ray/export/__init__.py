"""From a trained network to a file that takes raw pictures: ONNX, INT8 where it is better, parity, and the bundle."""

from autodl_ray.export.bundle import Formats, format_source, write_bundle
from autodl_ray.export.candidate import CandidateInputs, make_candidate, weights_digest
from autodl_ray.export.variants import only_variant

__all__ = [
    "CandidateInputs",
    "Formats",
    "format_source",
    "make_candidate",
    "only_variant",
    "weights_digest",
    "write_bundle",
]
