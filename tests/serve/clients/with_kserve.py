"""What a user of KServe's `InferenceRESTClient` does: run in an environment that has it, with a URL and a picture."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

MODEL = "colours"
PICTURES = np.full((2, 6, 4, 3), (220, 30, 20), np.uint8)
PICTURES[1] = (30, 40, 230)


def request(*, binary: bool) -> Any:
    """Return a request."""
    tensor = InferInput("image", list(PICTURES.shape), "UINT8")
    tensor.set_data_from_numpy(PICTURES, binary_data=binary)
    return InferRequest(request_id="r-1", model_name=MODEL, infer_inputs=[tensor])


async def main(url: str) -> dict[str, Any]:
    """Make every call; return what was answered."""
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    found: dict[str, Any] = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": await client.is_model_ready(url, MODEL),
    }
    for name, binary in (("json", False), ("binary", True)):
        asked = request(binary=binary)
        answer = await client.infer(url, asked, model_name=MODEL)
        found[name] = answer.outputs[0].as_numpy().tolist()
        found[f"{name}_id"] = answer.id
    try:
        await client.infer(url, request(binary=False), model_name="colour")
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"
    await client.close()
    first = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
    found["v1"] = await first.infer(url, {"instances": [{"b64": sys.argv[2]}]}, model_name=MODEL)
    await first.close()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))  # noqa: T201
