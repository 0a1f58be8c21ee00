"""What a user of `tritonclient.http` does, unmodified client: run in an environment that has it, with HOST:PORT."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

MODEL = "colours"
RED = np.full((2, 6, 4, 3), (220, 30, 20), np.uint8)
RED[1] = (30, 40, 230)


def request(*, binary: bool = True) -> list[Any]:
    """Return the input of a request."""
    tensor = triton.InferInput("image", list(RED.shape), "UINT8")
    tensor.set_data_from_numpy(RED, binary_data=binary)
    return [tensor]


def ask(client: Any, **options: Any) -> Any:
    """Return the probabilities of the plainest call, with options."""
    return client.infer(MODEL, options.pop("inputs", None) or request(), **options)


def main(url: str, picture: bytes) -> dict[str, Any]:
    """Make every call; return what was answered."""
    client = triton.InferenceServerClient(url)
    found: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "version_ready": client.is_model_ready(MODEL, "0123456789ab"),
        "other_ready": client.is_model_ready("other"),
        "server": client.get_server_metadata(),
        "metadata": client.get_model_metadata(MODEL),
        "config": client.get_model_config(MODEL),
        "index": client.get_model_repository_index(),
    }
    named = [triton.InferRequestedOutput("probabilities")]
    text = [triton.InferRequestedOutput("probabilities", binary_data=False)]
    classes = [triton.InferRequestedOutput("probabilities", class_count=2)]
    calls = {
        "plain": {},
        "json_in": {"inputs": request(binary=False)},
        "json_both": {"inputs": request(binary=False), "outputs": text},
        "named": {"outputs": named, "request_id": "42", "model_version": "0123456789ab"},
        "json_out": {"outputs": text},
        "gzip": {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"},
        "deflate": {"request_compression_algorithm": "deflate", "response_compression_algorithm": "deflate"},
        "patient": {"timeout": 20_000_000, "priority": 1},
    }
    found["answers"] = {
        name: ask(client, **options).as_numpy("probabilities").tolist() for name, options in calls.items()
    }
    many = triton.InferInput("image", [200, 2, 2, 3], "UINT8")
    many.set_data_from_numpy(np.zeros((200, 2, 2, 3), np.uint8))
    for method in ("gzip", "deflate"):
        large = client.infer(MODEL, [many], response_compression_algorithm=method).as_numpy("probabilities")
        found[f"large_{method}"] = list(large.shape)
    found["id"] = ask(client, outputs=named, request_id="42").get_response()["id"]
    found["async"] = client.async_infer(MODEL, request()).get_result().as_numpy("probabilities").tolist()
    found["classes"] = [[t.decode() for t in row] for row in ask(client, outputs=classes).as_numpy("probabilities")]
    found["classes_json"] = (
        ask(client, outputs=[triton.InferRequestedOutput("probabilities", binary_data=False, class_count=1)])
        .as_numpy("probabilities")
        .tolist()
    )
    files = triton.InferInput("image", [1], "BYTES")
    files.set_data_from_numpy(np.array([picture], dtype=object))
    found["file"] = client.infer(MODEL, [files]).as_numpy("probabilities").tolist()
    try:
        wrong = triton.InferInput("image", [1, 2], "FP32")
        wrong.set_data_from_numpy(np.zeros((1, 2), np.float32))
        client.infer(MODEL, [wrong])
    except InferenceServerException as error:
        found["error"] = [error.status(), error.message()]
    found["statistics"] = client.get_inference_statistics(MODEL)
    found["all_statistics"] = len(client.get_inference_statistics()["model_stats"])
    client.close()
    found["aio"] = asyncio.run(with_aio(url))
    return found


async def with_aio(url: str) -> Any:
    """Ask once with the client for asyncio, compressed both ways."""
    async with triton_aio.InferenceServerClient(url) as client:
        answer = await client.infer(
            MODEL, request(), request_compression_algorithm="gzip", response_compression_algorithm="deflate"
        )
        return answer.as_numpy("probabilities").tolist()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], bytes.fromhex(sys.argv[2]))))  # noqa: T201
