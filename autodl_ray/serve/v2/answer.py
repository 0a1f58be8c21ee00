"""What is answered to an inference request of the Open Inference Protocol: JSON, or JSON and bytes."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from autodl_ray.serve.answers import ServedModel
from autodl_ray.serve.http.answers import Answer
from autodl_ray.serve.v2.request import OUTPUT, InferRequest
from autodl_ray.serve.v2.tensors import pack_strings, values_of

__all__ = ["compressed", "render_infer"]

_WORTH_IT = 512  # bytes; less does not become smaller


def render_infer(model: ServedModel, request: InferRequest, probabilities: npt.NDArray[np.float32]) -> Answer:
    """Return the answer for (N, C) float32 probabilities, as the request wants it."""
    output: dict[str, Any] = {"name": OUTPUT}
    if request.classification:
        texts = _classification(model, probabilities, request.classification)
        output |= {"datatype": "BYTES", "shape": [len(texts), len(texts[0])]}
        flat = [text for row in texts for text in row]
        raw = pack_strings(flat) if request.binary else b""
        data: list[Any] = flat
    else:
        output |= {"datatype": "FP32", "shape": list(probabilities.shape)}
        raw = probabilities.astype("<f4").tobytes() if request.binary else b""
        data = [] if request.binary else values_of(probabilities)
    output |= {"parameters": {"binary_data_size": len(raw)}} if request.binary else {"data": data}
    document: dict[str, Any] = {"model_name": model.name, "model_version": model.version, "outputs": [output]}
    if request.id is not None:
        document["id"] = request.id
    text = json.dumps(document, separators=(",", ":")).encode()
    if not request.binary:
        return Answer(text)
    length = (b"inference-header-content-length", str(len(text)).encode())
    return Answer(text + raw, content_type=b"application/octet-stream", headers=[length])


def compressed(answer: Answer, accepted: str) -> Answer:
    """Compress the body with the first of gzip and deflate that ``Accept-Encoding`` names, where it is worth it."""
    for part in accepted.lower().split(",")[:10]:
        name, _, quality = part.strip().partition(";")
        if name not in ("gzip", "deflate") or quality.strip() in ("q=0", "q=0.0"):
            continue
        if len(answer.body) >= _WORTH_IT:
            answer.body = gzip.compress(answer.body, 1) if name == "gzip" else zlib.compress(answer.body, 1)
            answer.headers += [(b"content-encoding", name.encode()), (b"vary", b"accept-encoding")]
        break
    return answer


def _classification(model: ServedModel, probabilities: npt.NDArray[np.float32], count: int) -> list[list[str]]:
    """Return ``value:index:label`` of the likeliest classes, as Triton writes them."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return [
        [f"{row[i]:f}:{i}:{model.classes[i]}" for i in ranks] for row, ranks in zip(probabilities, order, strict=True)
    ]
