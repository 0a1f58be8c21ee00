"""What the service is measured against: a bare loop, and FastAPI with onnxruntime. Each a process of its own.

python -m tests.benchmarks.serve_rivals bare BUNDLE PHOTO SECONDS THREADS
python -m tests.benchmarks.serve_rivals fastapi BUNDLE PORT
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

__all__: list[str] = []


def _session(folder: str) -> tuple[Any, list[str]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    info = json.loads((Path(folder) / "bundle.json").read_text(encoding="utf-8"))
    path = Path(folder) / info["variants"][info["default_variant"]]
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]), info["classes"]


def _answer(session: Any, classes: list[str], data: bytes) -> dict[str, Any]:
    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    scores = session.run(["probabilities"], {"image": pixels[None]})[0][0]
    order = np.argsort(-scores)[:5]
    return {"predictions": [{"class": classes[i], "probability": round(float(scores[i]), 6)} for i in order]}


def _bare(folder: str, photo: str, seconds: str, threads: str) -> None:
    session, classes = _session(folder)
    data, until = Path(photo).read_bytes(), time.perf_counter() + float(seconds)
    _answer(session, classes, data)
    cpu, began = time.process_time(), time.perf_counter()

    def loop(_: int) -> int:
        count = 0
        while time.perf_counter() < until:
            _answer(session, classes, data)
            count += 1
        return count

    with ThreadPoolExecutor(int(threads)) as pool:
        count = sum(pool.map(loop, range(int(threads))))
    seconds_taken, cpu_taken = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"per_s": count / seconds_taken, "cpu_ms": 1000 * cpu_taken / count}))


def _fastapi(folder: str, port: str) -> None:
    import asyncio

    import uvicorn
    from fastapi import FastAPI, Request

    globals()["Request"] = Request  # FastAPI looks the annotation up there
    session, classes = _session(folder)
    app = FastAPI()
    pool = ThreadPoolExecutor(2)
    slow = os.environ.get("RIVAL_THREADS") == "1"

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        body = await request.body()
        if slow:  # a large model would hold up the loop
            return await asyncio.get_running_loop().run_in_executor(pool, _answer, session, classes, body)
        return _answer(session, classes, body)

    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error", access_log=False)


if __name__ == "__main__":
    {"bare": _bare, "fastapi": _fastapi}[sys.argv[1]](*sys.argv[2:])
