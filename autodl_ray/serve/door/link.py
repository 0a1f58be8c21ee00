"""The replica's end: connects to the door, runs the ASGI application for each request, and says goodbye properly."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message

from autodl_ray.serve.door.frames import FrameReader, pack
from autodl_ray.serve.door.loop import new_loop

__all__ = ["Link"]

_log = logging.getLogger("ray.serve")
_FAILED = [500, [[b"content-type", b"application/json"]], b'{"error": "Something went wrong here."}']


class Link:
    """A thread with an event loop of its own, in which the HTTP application of this replica runs.

    Args:
        socket: The door's Unix socket.
        app: The HTTP application.
        name: Of this replica.
        slots: Requests it takes at a time.
        on_goal: Told what is to be served, whenever that changes, in a thread of its own: trying a version takes
            seconds. A new replica takes part when it returns.
        state: What the replica says of itself, a JSON-like value, four times a second at most.
    """

    def __init__(
        self,
        socket: Path,
        app: ASGIApp,
        *,
        name: str,
        slots: int,
        on_goal: Callable[[Any], None] = lambda goal: None,
        state: Callable[[], Any] = lambda: None,
    ) -> None:
        self.waiting = 0.0
        self.under_way = 0
        self._socket, self._app, self._on_goal, self._state = socket, app, on_goal, state
        self._hello = ["hello", name, slots]
        self._transport: Any = None
        self._said: Any = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._goals = ThreadPoolExecutor(1, "goal")  # one thread: goals are followed in their order
        self._let_go = threading.Event()
        self._beat = time.monotonic()
        self._loop = new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)

    def open(self) -> None:
        """Connect to the door.

        Raises:
            OSError: There is no door.
        """
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._connect(), self._loop).result(10)

    def close(self, *, drain_s: float) -> None:
        """Take leave: nothing new comes after the door's answer, and what is under way is finished."""
        until = time.monotonic() + drain_s
        self._loop.call_soon_threadsafe(self._say, ["bye"])
        self._let_go.wait(min(1.0, drain_s))
        while self.under_way and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.02)  # the last answers leave the buffer
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=1)
        self._goals.shutdown(wait=False)

    def is_alive(self) -> bool:
        """Whether the loop turned within the last seconds."""
        return time.monotonic() - self._beat < 10.0

    async def _connect(self) -> None:
        await self._loop.create_unix_connection(lambda: _Peer(self), str(self._socket))
        self._turn()

    def _turn(self) -> None:
        """Leave a sign of life, and say what changed."""
        self._beat = time.monotonic()
        state = self._state()
        if state != self._said:
            self._said = state
            self._say(["state", state])
        self._loop.call_later(0.25, self._turn)

    def _say(self, message: list[Any]) -> None:
        if self._transport is not None:
            self._transport.write(pack(message))

    def _heard(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == "req":
            self.under_way += 1
            self._begin(self._answer(message))
        elif kind == "load":
            self.waiting = message[1]
        elif kind == "goal":
            self._begin(self._follow(message[1]))
        elif kind == "bye":
            self._let_go.set()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, goal: Any) -> None:
        if goal is not None:
            await self._loop.run_in_executor(self._goals, self._on_goal, goal)
        self._say(["ready"])

    async def _answer(self, message: list[Any]) -> None:
        _, number, method, path, query, headers, body, client = message
        answer: list[Any] = _FAILED
        try:
            answer = await _run(self._app, _scope(method, path, query, headers, client), body)
        except Exception:
            _log.exception("a request failed")
        self.under_way -= 1
        self._say(["res", number, *answer])


class _Peer(asyncio.Protocol):
    def __init__(self, link: Link) -> None:
        self._link, self._reader = link, FrameReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link._transport = transport
        self._link._say(self._link._hello)

    def data_received(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            self._link._heard(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link._transport = None
        self._link._let_go.set()


def _scope(method: str, path: bytes, query: bytes, headers: list[Any], client: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": (unquote_to_bytes(path) if b"%" in path else path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(name, value) for name, value in headers],
        "client": (client, 0) if client else None,
        "server": None,
    }


async def _run(app: ASGIApp, scope: dict[str, Any], body: bytes) -> list[Any]:
    """Run the application for one whole request and return its whole answer: status, headers, body."""
    given = False
    start: list[Any] = []
    parts: list[bytes] = []

    async def receive() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.get_running_loop().create_future()  # the client stays; nothing more comes
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start[:] = [message["status"], [(bytes(n).lower(), bytes(v)) for n, v in message.get("headers", ())]]
        elif part := message.get("body", b""):
            parts.append(part)

    await app(scope, receive, send)
    if not start:
        return _FAILED
    return [*start, parts[0] if len(parts) == 1 else b"".join(parts)]
