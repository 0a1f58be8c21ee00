"""What stands before every route: who may ask, under which host name, and JSON for every error."""

from __future__ import annotations

import contextlib
import hmac
import logging
from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from autodl_ray.errors import InputError
from autodl_ray.serve.engine import reason
from autodl_ray.serve.settings import hash_key

__all__ = ["LOOPBACK_HOSTS", "Guard", "add_error_answers", "error_answer"]

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
"""Names under which a service on loopback is asked; another name is a web page that reaches for it."""

_OPEN = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
_log = logging.getLogger("ray.serve")


def error_answer(status: int, message: str, *, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return ``{"error": message}``."""
    return JSONResponse({"error": message}, status, headers)


class Guard:
    """ASGI middleware that asks for a bearer token and refuses foreign host names.

    The page itself and the health paths are open: they tell nothing about the models.

    Args:
        app: What is guarded.
        key_hash: :func:`~autodl_ray.serve.settings.hash_key` of the API key, or None for none.
        hosts: Accepted host names, without the port; None: any.
    """

    def __init__(self, app: ASGIApp, *, key_hash: str | None = None, hosts: Sequence[str] | None = None) -> None:
        self._app = app
        self._key_hash = key_hash
        self._hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (refusal := self._refusal(scope)) is not None:
            await refusal(scope, receive, send)
        else:
            with contextlib.suppress(Exception):  # Starlette answers and logs it, then raises it again
                await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            return error_answer(403, "This service answers on loopback only, under the names 127.0.0.1 and localhost.")
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if self._key_hash is None or path in _OPEN or self._is_key(headers.get("authorization", "")):
            return None
        return error_answer(
            401,
            "An API key is needed: send the header 'Authorization: Bearer KEY'.",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _is_key(self, header: str) -> bool:
        scheme, _, key = header.partition(" ")
        assert self._key_hash is not None
        return scheme.lower() == "bearer" and hmac.compare_digest(hash_key(key.strip()), self._key_hash)


def add_error_answers(app: FastAPI) -> None:
    """Make every error of ``app`` a JSON object with ``error``, without traces or paths."""

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404 and error.detail == "Not Found":  # Starlette's own, for a path without a route
            return error_answer(404, f"There is no {request.url.path[:80]}. There are /, /predict, /models and /v2.")
        headers = None if error.headers is None else dict(error.headers)
        return error_answer(error.status_code, str(error.detail), headers=headers)

    async def input_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, InputError)
        return error_answer(400, reason(error))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return error_answer(400, f"{'.'.join(str(part) for part in first['loc'][1:])}: {first['msg']}")

    async def unexpected(request: Request, error: Exception) -> Response:
        _log.error("request %s failed", request.headers.get("x-request-id", "?"), exc_info=error)
        return error_answer(500, "Something went wrong here. The reason is in the service's log, by the request id.")

    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(InputError, input_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)


def _host_name(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()
