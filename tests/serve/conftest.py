"""What the tests of serving share: one tiny bundle, the application without Ray, and one service over Ray."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from autodl_ray.serve.api import create_app
from autodl_ray.serve.engine import Engine, open_models
from autodl_ray.spec import ServeSpec
from tests.serve.tiny import make_bundle

Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny bundle that tells red, green and blue."""
    return make_bundle(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def engine(bundle: Path) -> Iterator[Engine]:
    """Two names for the tiny model, with a small pixel cap."""
    models = open_models([("colours", bundle), ("paints", bundle)], num_threads=1)
    engine = Engine(models, max_pixels=1_000_000)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def ask(engine: Engine) -> Ask:
    """Ask the application without a server or Ray: ``ask("GET", "/v2")``."""
    return asker(create_app(engine, ServeSpec(max_body_mb=0.5)))


def asker(app: ASGIApp) -> Ask:
    """Return a function that sends one request to ``app``."""

    def send(method: str, url: str, **options: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, url, **options)

        return asyncio.run(once())

    return send


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def error_of(response: httpx.Response, status: int) -> str:
    """Check that the answer is an error as every error is, and return its text."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    text: str = response.json()["error"]
    assert "Traceback" not in text
    assert ".py" not in text
    return text
