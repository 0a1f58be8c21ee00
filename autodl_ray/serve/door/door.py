"""The door: listens for clients, gives their requests to the replicas, and repeats what a lost replica left undone."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from autodl_ray.serve.door.balance import Balance, Room, Ticket
from autodl_ray.serve.door.frames import FrameReader, pack
from autodl_ray.serve.door.http import Clients, HttpConnection, HttpRequest, Limits, error_body
from autodl_ray.serve.door.loop import new_loop

__all__ = ["Door", "DoorSettings"]

_T = TypeVar("_T")
_JSON = (b"content-type", b"application/json")
_BUSY = error_body(
    "The service is busy: as many requests wait as may wait. Try again after the seconds of Retry-After."
)
_NOBODY = error_body("No replica can answer now. Try again in a moment.")
_LOST = error_body("The replica was lost while it worked on this request, and so was a second one.")
_TICK_S = 0.25
_NOT_TWICE = (b"/load", b"/unload")


@dataclass(frozen=True)
class DoorSettings:
    """How the door treats requests.

    Attributes:
        host: Where clients reach it.
        port: TCP port; 0: a free one.
        limits: Caps of a request.
        max_queued: Most requests that wait; -1: no limit.
        max_wait_s: Longest expected wait before a request is refused with 429.
        answer_s: Seconds after which a request that found no replica is answered with 503.
        ssl: TLS of the clients' side, or None.
    """

    host: str
    port: int
    limits: Limits
    max_queued: int = 200
    max_wait_s: float = 0.5
    answer_s: float = 60.0
    ssl: ssl.SSLContext | None = None


class Door:
    """The service's own HTTP server: it runs in a thread of this process.

    Args:
        socket: Path of the Unix socket at which replicas report.
        settings: Where it listens and what it accepts.
        wake: Called, from another thread, when requests wait and there is no replica.
    """

    def __init__(self, socket: Path, settings: DoorSettings, *, wake: Callable[[], None] = lambda: None) -> None:
        self.balance = Balance(max_queued=settings.max_queued, max_wait_s=settings.max_wait_s)
        self.states: dict[str, Any] = {}
        self.port = settings.port
        self.socket, self._settings, self._wake = socket, settings, wake
        self._clients = Clients()
        self._replicas: set[_Replica] = set()
        self._servers: list[asyncio.AbstractServer] = []
        self.goal: Any = None
        self._woken_at = 0.0
        self._loop: asyncio.AbstractEventLoop = new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="door", daemon=True)

    def open(self) -> None:
        """Begin to listen.

        Raises:
            OSError: The port is in use.
        """
        self._thread.start()
        try:
            self._call(self._listen())
        except BaseException:
            self.close(drain_s=0)
            raise

    def close(self, *, drain_s: float = 6.0) -> None:
        """Accept nothing more, let what is under way be answered, and end the thread."""
        with contextlib.suppress(TimeoutError):
            self._call(self._drain(drain_s), timeout_s=drain_s + 5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self.socket.unlink(missing_ok=True)

    def tell(self, goal: Any) -> None:
        """Tell every replica, and each that comes, what is to be served (a JSON-like value)."""

        async def tell() -> None:
            self.goal = goal
            for replica in self._replicas:
                replica.say(["goal", goal])

        self._call(tell())

    def figures(self) -> dict[str, Any]:
        """Return ``replicas``, ``under_way``, ``waiting``, ``refused`` and what each replica last said of itself."""

        async def figures() -> dict[str, Any]:
            balance = self.balance
            return {
                "replicas": len(balance.rooms),
                "under_way": balance.under_way(),
                "waiting": len(balance.waiting),
                "refused": balance.refused,
                "states": {r.room.name: self.states.get(r.room.name) for r in self._replicas if r.room is not None},
            }

        return self._call(figures())

    def _call(self, work: Coroutine[Any, Any, _T], timeout_s: float = 30.0) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    async def _listen(self) -> None:
        loop, settings = self._loop, self._settings
        connection = functools.partial(HttpConnection, self._handle, settings.limits, self._clients)
        server = await loop.create_server(
            connection, settings.host, settings.port, ssl=settings.ssl, backlog=2048, reuse_address=True
        )
        self.port = server.sockets[0].getsockname()[1]
        self.socket.unlink(missing_ok=True)
        inner = await loop.create_unix_server(lambda: _Replica(self), str(self.socket))
        self.socket.chmod(0o600)
        self._servers = [server, inner]
        loop.call_later(_TICK_S, self._tick)

    async def _drain(self, seconds: float) -> None:
        for server in self._servers[:1]:
            server.close()
        for connection in list(self._clients.connections):  # else one that is kept alive would go on asking
            connection.close_when_idle()
        until = time.monotonic() + seconds
        while time.monotonic() < until and (self.balance.under_way() or self.balance.waiting):
            await asyncio.sleep(0.02)
        for server in self._servers[1:]:
            server.close()
        await asyncio.sleep(0)

    def _handle(self, request: HttpRequest) -> None:
        if request.path.startswith(b"/-/"):
            self._health(request)
            return
        message = [request.method, request.path, request.query, request.headers, request.body, request.client]
        if not any(name == b"x-request-id" for name, _ in request.headers):
            request.headers.append((b"x-request-id", request.request_id))
        ticket = Ticket(message, request.answer, may_repeat=not request.path.endswith(_NOT_TWICE))
        request.on_gone = functools.partial(_hang_up, ticket)
        now = time.monotonic()
        again_s = self.balance.offer(ticket, now)
        if again_s is not None:
            request.answer(429, (_JSON, (b"retry-after", b"%d" % again_s)), _BUSY)
        elif not self.balance.rooms:
            self._wake_up(now)

    def _health(self, request: HttpRequest) -> None:
        if request.path in (b"/-/healthz", b"/-/routes"):
            request.answer(200, ((b"content-type", b"text/plain"),), b"success")
        else:
            request.answer(404, (_JSON,), error_body("There is no such path."))

    def _wake_up(self, now: float) -> None:
        if now - self._woken_at > 2.0:
            self._woken_at = now
            threading.Thread(target=self._wake, name="wake", daemon=True).start()

    def _tick(self) -> None:
        """Tell the replicas how many requests wait, and end the wait of those that found nobody for too long."""
        self._loop.call_later(_TICK_S, self._tick)
        now, waiting = time.monotonic(), self.balance.waiting
        while waiting and now - waiting[0].sent_at > self._settings.answer_s:
            waiting.popleft().done(503, [_JSON, (b"retry-after", b"5")], _NOBODY)
        if waiting and not self.balance.rooms:
            self._wake_up(now)
        for replica in self._replicas:
            replica.say(["load", len(waiting) / len(self._replicas)])


class _Replica(asyncio.Protocol):
    """The door's end of the connection to one replica."""

    def __init__(self, door: Door) -> None:
        self._door, self._reader = door, FrameReader()
        self._transport: Any = None
        self.room: Room | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def say(self, message: list[Any]) -> None:
        if self._transport is not None:
            self._transport.write(pack(message))

    def data_received(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            if message[0] == "res":
                self._finish(*message[1:])
            else:
                self._heard(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ask another replica what this one left undone: a prediction may safely be made twice."""
        self._transport = None
        self._door._replicas.discard(self)
        if self.room is None:
            return
        self._door.states.pop(self.room.name, None)
        now = time.monotonic()
        for ticket in self._door.balance.leave(self.room):
            if not ticket.open:
                continue
            if ticket.may_repeat:
                self._door.balance.again(ticket, now)
            else:
                ticket.done(503, [_JSON, (b"retry-after", b"1")], _LOST)

    def _heard(self, message: list[Any]) -> None:
        door, kind = self._door, message[0]
        if kind == "hello":
            self.room = Room(message[1], message[2], lambda ticket: self.say(["req", ticket.number, *ticket.message]))
            door._replicas.add(self)
            self.say(["goal", door.goal])
        elif self.room is None:
            self._transport.close()
        elif kind == "ready" and self.room not in door.balance.rooms:
            door.balance.join(self.room, time.monotonic())
        elif kind == "state":
            door.states[self.room.name] = message[1]
        elif kind == "bye":
            door.balance.leave(self.room)
            self.say(["bye"])

    def _finish(self, number: int, status: int, headers: list[Any], body: bytes) -> None:
        if self.room is None:
            return
        ticket = self._door.balance.finish(self.room, number, time.monotonic())
        if ticket is not None and ticket.open:
            ticket.done(status, headers, body)


def _hang_up(ticket: Ticket) -> None:
    ticket.open = False
