"""The description of the interface in OpenAPI 3.1, with an example for everything that is sent and answered."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version as installed_version
from typing import Any

from autodl_ray.serve.answers import ServedModel
from autodl_ray.spec import ServeSpec

__all__ = ["openapi"]

Json = dict[str, Any]

_ERRORS = {
    "400": ("The request or the picture is not usable.", "This is not a picture. (seen: 5 bytes …)"),
    "401": ("No key, or a wrong one.", "An API key is needed: send the header 'Authorization: Bearer KEY'."),
    "404": ("There is no such path, model or version.", "There is no model 'cat'; did you mean 'cats'?"),
    "413": ("The request is too large.", "The request is too large. At most 20 MB are accepted."),
    "429": ("Too busy, or the key's rate is used up: see Retry-After.", "The service is busy. …"),
}
_DRIFT: Json = {
    "verdict": "drifting",
    "drifting": ["brightness"],
    "seen": 1000,
    "window": 1000,
    "statistics": {"brightness": {"psi": 1.31, "limit": 0.277, "verdict": "drifting"}},
    "classes": {"jensen_shannon": 0.004, "limit": 0.05, "verdict": "stable"},
}
_B64 = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"


def openapi(models: Sequence[ServedModel], settings: ServeSpec, *, with_key: bool) -> Json:
    """Describe the interface as this service has it.

    Args:
        models: Whose names and classes the examples show; the first is the default.
        settings: Caps that are told.
        with_key: Whether an API key is asked for.
    """
    first = models[0]
    shown = [
        {"class": name, "probability": share} for name, share in zip(first.classes, (0.93, 0.05, 0.02), strict=False)
    ]
    facts = first.facts()
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "autodl_ray",
            "version": installed_version("autodl_ray"),
            "description": (
                f"Pictures in, classes out. At most {settings.max_body_mb:g} MB, {settings.max_pictures} pictures a "
                f"request and {settings.max_pixels:,} pixels a picture; JPEG, PNG, WebP, BMP, GIF (first frame), TIFF. "
                "Every answer names the model's version, in its body and in the header X-Model-Version. "
                'Every error is {"error": text}.'
            ),
        },
        "paths": {**_friendly(first, facts, shown), **_about(first, facts), **_protocol(first)},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "autodl keys create NAME"}},
        },
    }
    if with_key:
        document["security"] = [{"key": []}]
    return document


def _friendly(first: ServedModel, facts: Json, shown: list[Json]) -> Json:
    answer = {**facts, "predictions": shown, "ms": 4.2}
    several = {
        **facts,
        "results": [
            {"filename": "a.jpg", "predictions": shown},
            {"filename": "notes.txt", "error": "This is not a picture. …", "status": 400},
        ],
        "ms": 7.9,
    }
    operation = {
        "summary": "Classify a picture, or several",
        "description": (
            "The body is the bytes of a picture, a multipart form with one or several files, or JSON. "
            "Of several pictures a broken one fails alone, with its reason."
        ),
        "parameters": [
            _query("top_k", "integer", 5, "Classes in the answer, the likeliest first."),
            _query("heatmap", "boolean", False, "Where the model looks: by hiding one part after the other (slow)."),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "image/*": {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                    }
                },
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/JsonPictures"},
                    "examples": {
                        "one": {"value": {"image": _B64, "top_k": 3}},
                        "several": {"value": {"images": [_B64, {"b64": _B64}]}},
                        "address": {"value": {"url": "https://example.org/a.jpg"}},
                        "as of TensorFlow Serving": {"value": {"instances": [{"b64": _B64}]}},
                    },
                },
            },
        },
        "responses": {
            "200": _json("The likeliest classes.", "Prediction", {"one": answer, "several": several}),
            **_refusals("400", "401", "404", "413", "429"),
        },
    }
    name = _path("name", first.name)
    default = [_query("model", "string", first.name, "Name of the model."), _query("version", "string", None, "Of it.")]
    return {
        "/predict": {"post": {**operation, "parameters": [*operation["parameters"], *default]}},
        "/v1/models/{name}:predict": {"post": {**operation, "parameters": [name, *operation["parameters"]]}},
        "/v1/models/{name}/versions/{version}:predict": {
            "post": {**operation, "parameters": [name, _path("version", first.version), *operation["parameters"]]}
        },
    }


def _about(first: ServedModel, facts: Json) -> Json:
    entry = {**facts, "classes": list(first.classes)}
    models = {"models": [entry], "max_body_mb": 20.0}
    return {
        "/v1/models": {"get": _get("List the models and their versions", models)},
        "/v1/models/{name}": {"get": _get("Describe one model", entry, first)},
        "/v1/models/{name}/drift": {
            "get": _get("How far its last pictures are from its training (scope admin)", _DRIFT | facts, first)
        },
        "/metrics": {
            "get": {
                "summary": "Counters and histograms for Prometheus; needs a key with the scope admin",
                "responses": {
                    "200": {
                        "description": "Text format 0.0.4.",
                        "content": {"text/plain": {"example": "autodl_requests_total{…} 17"}},
                    }
                },
            }
        },
    }


def _protocol(first: ServedModel) -> Json:
    request = {
        "id": "42",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [220, 30, 20, 220, 30, 20]}],
    }
    count = len(first.classes)
    output = {"name": "probabilities", "datatype": "FP32", "shape": [1, count], "data": [1.0, *[0.0] * (count - 1)]}
    answer = {"id": "42", "model_name": first.name, "model_version": first.version, "outputs": [output]}
    metadata = {"name": first.name, "versions": [first.version], "platform": "onnx_onnxv1", "inputs": [], "outputs": []}
    infer = {
        "summary": "Open Inference Protocol V2: pixels or picture files in, probabilities out",
        "description": (
            "Input `image`: UINT8 (N, H, W, 3) or BYTES (N,), picture files (base64 in JSON). Binary tensors with the "
            "header Inference-Header-Content-Length, gzip and deflate both ways, and `classification` are understood."
        ),
        "parameters": [_path("name", first.name)],
        "requestBody": {"required": True, "content": {"application/json": {"example": request}}},
        "responses": {
            "200": {"description": "Probabilities.", "content": {"application/json": {"example": answer}}},
            **_refusals("400", "401", "404", "413", "429"),
        },
    }
    index = _get("List every version", [{"name": first.name, "version": first.version, "state": "READY", "reason": ""}])
    return {
        "/v2/models/{name}/infer": {"post": infer},
        "/v2": {"get": _get("Describe the server", {"name": "autodl_ray", "version": "0.1.0", "extensions": []})},
        "/v2/health/live": {"get": _get("Live? (no key)", {"live": True, "ready": True})},
        "/v2/health/ready": {"get": _get("Ready? (no key)", {"live": True, "ready": True})},
        "/v2/models/{name}": {"get": _get("Describe one model", metadata, first)},
        "/v2/models/{name}/ready": {"get": _get("Is it ready?", {"name": first.name, "ready": True}, first)},
        "/v2/models/{name}/config": {
            "get": _get("Its configuration", {"name": first.name, "max_batch_size": 256}, first)
        },
        "/v2/models/{name}/stats": {"get": _get("Its counts and times", {"model_stats": []}, first)},
        "/v2/repository/index": {"post": index},
    }


def _schemas() -> Json:
    prediction = {
        "type": "object",
        "required": ["class", "probability"],
        "properties": {"class": {"type": "string"}, "probability": {"type": "number", "minimum": 0, "maximum": 1}},
    }
    picture = {"oneOf": [{"type": "string"}, {"type": "object", "properties": {"b64": {"type": "string"}}}]}
    pictures = {"type": "array", "items": picture}
    properties: Json = {"image": picture, "images": pictures, "instances": pictures, "url": {"type": "string"}}
    properties |= {"top_k": {"type": "integer", "minimum": 1}, "heatmap": {"type": "boolean"}}
    facts: Json = {name: {"type": "string"} for name in ("model", "version", "dataset")}
    answer: Json = {**facts, "ms": {"type": "number"}, "predictions": {"type": "array", "items": prediction}}
    answer |= {"results": {"type": "array", "items": {"type": "object"}}, "heatmap": {"type": "object"}}
    return {
        "JsonPictures": {"type": "object", "properties": properties},
        "Prediction": {"type": "object", "required": ["model", "version", "ms"], "properties": answer},
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    }


def _get(summary: str, example: Any, owner: ServedModel | None = None) -> Json:
    content = {"application/json": {"example": example}}
    operation: Json = {"summary": summary, "responses": {"200": {"description": "As asked.", "content": content}}}
    if owner is not None:
        operation["parameters"] = [_path("name", owner.name)]
        operation["responses"] |= _refusals("404")
    return operation


def _query(name: str, kind: str, default: Any, description: str) -> Json:
    schema: Json = {"type": kind} if default is None else {"type": kind, "default": default}
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _path(name: str, example: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "example": example}


def _json(description: str, schema: str, examples: dict[str, Any]) -> Json:
    content = {
        "schema": {"$ref": f"#/components/schemas/{schema}"},
        "examples": {name: {"value": value} for name, value in examples.items()},
    }
    return {"description": description, "content": {"application/json": content}}


def _refusals(*codes: str) -> Json:
    return {code: _json(_ERRORS[code][0], "Error", {"error": {"error": _ERRORS[code][1]}}) for code in codes}
