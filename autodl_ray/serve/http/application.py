"""The ASGI application: every request through the gate to its handler, every answer with id, version, log and count."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from autodl_ray.errors import InputError
from autodl_ray.serve.answers import UnknownModelError, reason
from autodl_ray.serve.guard.gate import Gate
from autodl_ray.serve.http.access import AccessLog
from autodl_ray.serve.http.answers import Answer, Header, Refusal, error_answer
from autodl_ray.serve.http.calls import Call
from autodl_ray.serve.http.deadlines import Deadlines
from autodl_ray.serve.http.routes import Route, Router
from autodl_ray.serve.metrics import Metrics

__all__ = ["Application"]

_GIVEN_UP = Answer(b"", 499)  # the client went away
_log = logging.getLogger("ray.serve")


@dataclass
class Application:
    """An ASGI application.

    Attributes:
        router: The handlers.
        gate: Who may ask them.
        metrics: Where requests are counted.
        deadlines: Most time of a request, and of what a client may ask for in ``x-request-timeout-seconds``.
        log: Where they are written down; None: nowhere.
        own_ids: Send the request id back; False where the server in front does.
    """

    router: Router
    gate: Gate
    metrics: Metrics
    deadlines: Deadlines
    log: AccessLog | None = None
    own_ids: bool = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see the ASGI specification."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        call = Call(scope, receive)
        self.metrics.count("autodl_requests_in_progress")
        answer = None
        try:
            answer = await self._answer(call)
            await self._send(call, answer, send)
        finally:
            self._record(call, answer or _GIVEN_UP, time.perf_counter() - started)

    async def _answer(self, call: Call) -> Answer:
        try:
            self.gate.origins.check(call)
            if (preflight := self.gate.origins.preflight(call)) is not None:
                return preflight
            route = self._find(call)
            return await self._in_time(route, call)
        except Refusal as refusal:
            return error_answer(refusal.status, refusal.message, refusal.headers)
        except UnknownModelError as error:
            return error_answer(404, str(error))
        except InputError as error:
            return error_answer(400, reason(error))
        except Exception as error:
            _log.error("request %s failed", call.id, exc_info=error)
            return error_answer(
                500, "Something went wrong here. The reason is in the service's log, by the request id."
            )

    async def _in_time(self, route: Route, call: Call) -> Answer:
        """Answer within the cap, or within what the client asks for: less, never more, never no limit."""
        seconds = _seconds(call.headers.get(b"x-request-timeout-seconds"), self.deadlines.seconds)
        task = self.deadlines.enter()
        try:
            if seconds == self.deadlines.seconds:
                return await route.handler(call)
            async with asyncio.timeout(seconds):
                return await route.handler(call)
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            if not self.deadlines.is_late(task):
                raise
        finally:
            self.deadlines.leave(task)
        return error_answer(408, f"There was no answer within {seconds:g} s.")

    def _find(self, call: Call) -> Route:
        """Find the handler; an unknown path is told only to those who may ask at all."""
        try:
            route = self.router.find(call)
        except Refusal:
            self.gate.check(call, "predict")
            raise
        call.route = route.pattern
        self.gate.check(call, route.need)
        return route

    async def _send(self, call: Call, answer: Answer, send: Send) -> None:
        headers: list[Header] = [
            (b"content-type", answer.content_type),
            (b"content-length", str(len(answer.body)).encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        headers += answer.headers
        headers += self.gate.origins.headers(call)
        if call.version:
            headers += [(b"x-model", call.model.encode()), (b"x-model-version", call.version.encode())]
        if self.own_ids:
            headers.append((b"x-request-id", call.id.encode("ascii", "replace")))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if call.method == "HEAD" else answer.body})

    def _record(self, call: Call, answer: Answer, seconds: float) -> None:
        labels = (call.route, str(answer.status), call.model, call.version)
        self.metrics.count("autodl_requests_in_progress", by=-1)
        self.metrics.count("autodl_requests_total", labels)
        self.metrics.observe("autodl_request_seconds", seconds, (call.route, call.model, call.version))
        self.metrics.publish()
        if self.log is not None:
            self.log.write(call, status=answer.status, seconds=seconds, bytes_out=len(answer.body))


def _seconds(wanted: bytes | None, most: float) -> float:
    if wanted is None:
        return most
    try:
        seconds = float(wanted)
    except ValueError:
        return most
    return min(seconds, most) if seconds > 0 else most


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
