"""Unmodified clients of Triton and KServe against the application behind a real HTTP server.

``$AUTODL_CLIENTS`` names a Python that has both. Without it, Triton's is taken from the developers' extra; KServe's,
whose pins do not fit ours, is skipped, or with ``AUTODL_CLIENTS=make`` installed once into pytest's cache (70 s).
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodl_ray.images import decode_image
from autodl_ray.serve.api import create_app
from autodl_ray.serve.engine import Engine
from tests.serve.live import serving
from tests.serve.tiny import CLASSES, picture

SCRIPTS = Path(__file__).parent / "clients"


def python_with(package: str, config: pytest.Config) -> str:
    """Return a Python that has ``package``; skips where there is none and none can be made."""
    given = os.environ.get("AUTODL_CLIENTS")
    if given not in (None, "make"):
        return str(given)
    name = package.partition("[")[0]
    if find_spec(name) is not None:
        return sys.executable
    if given is None:
        pytest.skip(f"{name} is not here: AUTODL_CLIENTS=PYTHON names one that has it, AUTODL_CLIENTS=make installs it")
    folder = Path(config.cache.mkdir("clients")) / name  # type: ignore[union-attr]
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, timeout=120)
        made = subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries", "1", package],
            capture_output=True,
            text=True,
            timeout=240,
        )
        if made.returncode:
            pytest.skip(f"pip cannot install {package} here (is there a network?)")
        (folder / "done").touch()
    return str(python)


def ran(python: str, script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of a client and return what it found."""
    done = subprocess.run([python, SCRIPTS / script, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    """The application behind a real server."""
    with serving(create_app(engine, metrics=engine.metrics)) as url:
        yield url


@pytest.fixture(scope="module")
def expected(engine: Engine) -> list[list[float]]:
    """What the model says of a red and a blue picture."""
    pictures = [np.full((6, 4, 3), colour, np.uint8) for colour in ((220, 30, 20), (30, 40, 230))]
    rows: list[list[float]] = engine.default.predict(pictures).tolist()
    return rows


def test_the_client_of_triton(
    url: str, engine: Engine, expected: list[list[float]], request: pytest.FixtureRequest
) -> None:
    data = picture("green")
    found = ran(
        python_with("tritonclient[http]", request.config), "with_triton.py", url.removeprefix("http://"), data.hex()
    )
    assert [found[name] for name in ("live", "ready", "model_ready", "version_ready", "other_ready")] == [
        True, True, True, True, False,
    ]  # fmt: skip
    assert {"binary_tensor_data", "classification"} <= set(found["server"]["extensions"])
    assert found["metadata"]["inputs"][0]["datatype"] == "UINT8"
    assert found["config"]["max_batch_size"] == 256
    assert [m["name"] for m in found["index"]] == ["colours", "paints"]
    for name, answer in found["answers"].items():
        assert answer == expected, name
    assert found["async"] == found["aio"] == expected
    assert found["large_gzip"] == found["large_deflate"] == [200, 3]
    assert found["id"] == "42"
    assert [[text.split(":")[2] for text in row] for row in found["classes"]] == [["red", "green"], ["blue", "green"]]
    assert [row[0].split(":")[1:] for row in found["classes_json"]] == [["2", "red"], ["0", "blue"]]
    assert found["file"] == engine.default.predict([decode_image(data)]).tolist()
    assert found["error"] == ["400", "Input 'image' is UINT8 (or BYTES, picture files), got 'FP32'."]
    (statistics,) = found["statistics"]["model_stats"]
    assert statistics["inference_count"] >= statistics["execution_count"] > 0
    assert statistics["inference_stats"]["compute_infer"]["ns"] > 0
    assert found["all_statistics"] == 2


@pytest.mark.slow
def test_the_client_of_kserve(url: str, expected: list[list[float]], request: pytest.FixtureRequest) -> None:
    encoded = base64.b64encode(picture("green")).decode()
    found = ran(python_with("kserve", request.config), "with_kserve.py", url, encoded)
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    assert found["json"] == found["binary"] == expected
    assert found["json_id"] == found["binary_id"] == "r-1"
    assert "There is no model 'colour'; did you mean 'colours'?" in found["error"]
    (answer,) = found["v1"]["predictions"]
    assert answer["predictions"][0]["class"] == "green"
    assert CLASSES[1] == "green"
