"""Small files that say what a model takes and gives: preprocess.json, labels.json, metrics.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from autodl_ray.artifacts.bundle import BundleInfo
from autodl_ray.export.runner.preprocess import SCHEMA
from autodl_ray.images import MAX_PIXELS, Preprocess

__all__ = [
    "LABELS_JSON",
    "METRICS_JSON",
    "PARITY_JSON",
    "PREPROCESS_JSON",
    "dump",
    "labels_document",
    "metrics_document",
    "preprocess_document",
]

PREPROCESS_JSON = "preprocess.json"
LABELS_JSON = "labels.json"
METRICS_JSON = "metrics.json"
PARITY_JSON = "parity.json"


def dump(document: Any) -> str:
    """Return indented JSON that ends with a line break."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def preprocess_document(preprocess: Preprocess) -> dict[str, Any]:
    """Return the content of ``preprocess.json``: everything between the bytes of a picture and the network.

    ``runner/preprocess.py`` is its reference implementation.
    """
    return {
        "schema": SCHEMA,
        "decode": {
            "colour": "RGB",
            "dtype": "uint8",
            "layout": "HWC",
            "exif_orientation": "applied",
            "transparency": "laid on white",
            "deeper_than_8_bits": "scaled to 8 bits",
            "animation": "first frame",
            "max_pixels": MAX_PIXELS,
        },
        "resize": {
            "size": preprocess.size,
            "fit": preprocess.fit,
            "interpolation": "bilinear",
            "antialias": True,
            "coordinates": "half_pixel",
            "rounding": "none: float32 from the scaling on",
            "other_side": "max(1, (side * size + fixed // 2) // fixed); "
            "fixed: the longer side (pad), the shorter one (crop)",
            "place": "centre; the surplus or missing pixel lies at the bottom and right",
        },
        "normalise": {
            "divide_by": 255,
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "margin_of_pad": 0.0,
        },
        "network_input": {"name": "pixels", "dtype": "float32", "layout": "NCHW", "batch": "any"},
        "in_graph": {
            "name": "image",
            "dtype": "uint8",
            "layout": "NHWC",
            "size": "any, one size a batch",
            "formats": ["onnx", "openvino", "torchscript"],
        },
    }


def labels_document(classes: Sequence[str]) -> dict[str, Any]:
    """Return the content of ``labels.json``: the classes by their position in ``probabilities``."""
    return {"schema": 1, "labels": list(classes)}


def metrics_document(info: BundleInfo) -> dict[str, Any]:
    """Return the content of ``metrics.json``: scores on validation and test split, and of INT8 beside FP32."""
    return {
        "schema": 1,
        "variant": info.default_variant,
        "validation": info.val_scores,
        "test": info.test_scores,
        "int8": info.int8.model_dump(mode="json"),
    }
