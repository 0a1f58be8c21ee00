"""What runs in Ray's own HTTP proxy: refusals become JSON like every other error, and no client waits for ever."""

from __future__ import annotations

import json
import os
from http import HTTPStatus
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["TIMEOUT_VARIABLE", "CapTimeout", "JsonErrors", "middlewares"]

TIMEOUT_VARIABLE = "AUTODL_REQUEST_TIMEOUT_S"
"""Environment variable of the proxy: most seconds that a client may ask for."""

_DEFAULT_TIMEOUT_S = 60.0
_HEADER = b"x-request-timeout-seconds"
_SAID = {
    429: "The service is busy: as many requests wait as may wait. Try again after the seconds of Retry-After.",
    503: "No replica can answer now. Try again in a moment.",
    408: "The request took too long.",
}


def middlewares() -> list[Middleware]:
    """Return what Ray Serve puts around its proxy, told by ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``."""
    most = os.environ.get(TIMEOUT_VARIABLE, "")
    return [Middleware(JsonErrors), Middleware(CapTimeout, most_s=float(most) if most else _DEFAULT_TIMEOUT_S)]


class CapTimeout:
    """ASGI middleware: the timeout that a client asks for is between a millisecond and the cap.

    Ray takes ``x-request-timeout-seconds`` from anyone, and 0 for "no timeout at all".

    Args:
        app: What is behind it.
        most_s: The cap, in seconds.
    """

    def __init__(self, app: ASGIApp, *, most_s: float = _DEFAULT_TIMEOUT_S) -> None:
        self._app = app
        self._most_s = most_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with that header put right."""
        if scope["type"] == "http" and any(name == _HEADER for name, _ in scope["headers"]):
            scope = {**scope, "headers": [(n, self._capped(v) if n == _HEADER else v) for n, v in scope["headers"]]}
        await self._app(scope, receive, send)

    def _capped(self, value: bytes) -> bytes:
        try:
            wanted = float(value)
        except ValueError:
            wanted = self._most_s
        return str(min(self._most_s, wanted) if wanted > 0 else self._most_s).encode()


class JsonErrors:
    """ASGI middleware: an error that is not JSON yet becomes ``{"error": …}``; the headers are kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and rewrite the start and the body of a plain error."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):  # Ray's own health and routes
            await self._app(scope, receive, send)
            return
        plain: list[Message] = []

        async def send_json(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_plain_error(message):
                plain.append(message)
            elif not plain:
                await send(message)
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                await _send_error(plain[0], send)

        await self._app(scope, receive, send_json)


def _is_plain_error(start: Message) -> bool:
    content_type = MutableHeaders(raw=list(start.get("headers", []))).get("content-type", "")
    return int(start["status"]) >= 400 and content_type != "application/json"


async def _send_error(start: Message, send: Send) -> None:
    status = int(start["status"])
    body = json.dumps({"error": _SAID.get(status) or f"{HTTPStatus(status).phrase}."}).encode()
    headers: list[Any] = [
        (name, value)
        for name, value in start.get("headers", [])
        if name.lower() not in (b"content-type", b"content-length")
    ]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body})
