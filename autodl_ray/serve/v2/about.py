"""What the service and its models say of themselves in the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autodl_ray.serve.answers import ServedModel
from autodl_ray.serve.metrics import Snapshot
from autodl_ray.serve.v2.request import INPUT, OUTPUT

__all__ = ["model_config", "model_metadata", "repository_index", "server_metadata", "statistics"]

_EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")
_PLATFORM = "onnx_onnxv1"


def server_metadata(version: str) -> dict[str, Any]:
    """Return what ``GET /v2`` answers."""
    return {"name": "autodl_ray", "version": version, "extensions": list(_EXTENSIONS)}


def model_metadata(model: ServedModel, versions: Sequence[str]) -> dict[str, Any]:
    """Return what ``GET /v2/models/NAME`` answers; the class names are among the parameters of the output."""
    labels = list(model.classes)
    return {
        "name": model.name,
        "versions": list(versions),
        "platform": _PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, len(labels)], "parameters": {"labels": labels}}],
        "parameters": {"dataset": model.dataset},
    }


def model_config(model: ServedModel, max_pictures: int) -> dict[str, Any]:
    """Return what ``GET /v2/models/NAME/config`` answers; as Triton has it, the dims leave out the batch."""
    return {
        "name": model.name,
        "platform": _PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"specific": {"versions": [model.version]}},
        "max_batch_size": max_pictures,
        "input": [{"name": INPUT, "data_type": "TYPE_UINT8", "format": "FORMAT_NHWC", "dims": [-1, -1, 3]}],
        "output": [{"name": OUTPUT, "data_type": "TYPE_FP32", "dims": [len(model.classes)]}],
        "dynamic_batching": {},
        "parameters": {"labels": {"string_value": "\n".join(model.classes)}},
    }


def repository_index(models: Sequence[ServedModel]) -> list[dict[str, str]]:
    """Return what ``POST /v2/repository/index`` answers."""
    return [{"name": m.name, "version": m.version, "state": "READY", "reason": ""} for m in models]


def statistics(models: Sequence[ServedModel], snapshot: Snapshot) -> dict[str, Any]:
    """Return what ``GET /v2/models/stats`` answers, from the series of all replicas of this machine."""
    return {"model_stats": [_of_one(model, snapshot) for model in models]}


def _of_one(model: ServedModel, snapshot: Snapshot) -> dict[str, Any]:
    owner = (model.name, model.version)
    calls, pictures = snapshot.total("autodl_batch_pictures", owner)
    took = {stage: snapshot.total("autodl_stage_seconds", (stage, *owner)) for stage in ("queue", "decode", "infer")}
    answered, failed = (
        int(snapshot.values.get(("autodl_pictures_total", (outcome, *owner)), 0)) for outcome in ("answered", "refused")
    )
    whole = sum(seconds for _, seconds in took.values())
    return {
        "name": model.name,
        "version": model.version,
        "inference_count": int(pictures),
        "execution_count": int(calls),
        "inference_stats": {
            "success": {"count": answered, "ns": int(whole * 1e9)},
            "fail": {"count": failed, "ns": 0},
            "queue": _duration(took["queue"]),
            "compute_input": _duration(took["decode"]),
            "compute_infer": _duration(took["infer"]),
            "compute_output": {"count": int(calls), "ns": 0},
        },
        "batch_stats": [],
    }


def _duration(total: tuple[float, float]) -> dict[str, int]:
    return {"count": int(total[0]), "ns": int(total[1] * 1e9)}
