"""HTTP/1.1 as the door speaks it: whole requests in (with caps on every part), whole answers out."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from json import dumps
from typing import Any

import httptools

__all__ = ["Clients", "HttpConnection", "HttpRequest", "Limits", "error_body"]

_REASONS = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in HTTPStatus}
_PREFIX = os.urandom(6).hex()
_JSON = (b"content-type", b"application/json")
_SOON = (b"retry-after", b"1")


@dataclass(frozen=True)
class Limits:
    """Caps of a request, all enforced before it reaches a replica.

    Attributes:
        body_bytes: Of the body.
        head_bytes: Of request line and headers.
        receive_s: Seconds from the first byte of a request to its last, and without a byte of an answer being read.
        idle_s: Seconds that a connection may wait for its next request.
        connections: Open at a time; a further one is told to come again.
        held_bytes: Of all bodies that are being received or wait for their answer, together.
    """

    body_bytes: int
    head_bytes: int = 32_768
    receive_s: float = 60.0
    idle_s: float = 75.0
    connections: int = 2_000
    held_bytes: int = 1 << 30


@dataclass
class Clients:
    """The open connections, and the bytes of bodies that they hold together."""

    connections: set[HttpConnection] = field(default_factory=set)
    held: int = 0


@dataclass(slots=True)
class HttpRequest:
    """One request as it came: header names in lower case, the body whole.

    ``answer`` is called once, on the loop; ``on_gone``, where it is set, when the client hangs up before.
    """

    method: str
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    client: str
    request_id: bytes
    keep_alive: bool
    answer: Callable[[int, Sequence[Sequence[bytes]], bytes], None]
    on_gone: Callable[[], None] | None = None


def error_body(message: str) -> bytes:
    """Return ``{"error": message}`` as JSON."""
    return dumps({"error": message}).encode()


class HttpConnection(asyncio.Protocol):
    """One connection of a client; its requests are answered in their order, one at a time.

    Args:
        handle: Told of each whole request; calls ``request.answer`` once, now or later, on the loop.
        limits: Caps of a request.
        clients: All connections of the door, for the caps that they share.
    """

    def __init__(self, handle: Callable[[HttpRequest], Any], limits: Limits, clients: Clients) -> None:
        self._handle, self._limits, self._clients = handle, limits, clients
        self._held = 0
        self._numbers = itertools.count()
        self._transport: Any = None
        self._parser = httptools.HttpRequestParser(self)
        self._ready: deque[HttpRequest] = deque()
        self._unread = 0  # bytes
        self._working = self._closing = self._choked = False
        self._timer: asyncio.TimerHandle | None = None
        self._client = ""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._begun = False
        self._reset()

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the client."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""
        self._clients.connections.add(self)
        self._wait(self._limits.idle_s)
        if len(self._clients.connections) > self._limits.connections:
            self._busy()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it; answers that are still to come go nowhere."""
        self._clients.connections.discard(self)
        self._hold(-self._held)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._working and self._current.on_gone is not None:
            self._current.on_gone()

    def pause_writing(self) -> None:
        """Answer nothing more to a client that does not read; what it has not read would fill the memory."""
        self._choked, self._unread = True, sys.maxsize
        self._wait(self._limits.receive_s)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._choked = False
        if self._transport is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._ready and not self._working:
            self._go_on()
        elif self._begun or not self._working:
            self._rest()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._closing:
            return
        if not self._begun:
            self._begun = True
            if not self._choked:
                self._wait(self._limits.receive_s)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "Upgrading the connection is not supported here.")
        except httptools.HttpParserError:
            if not self._closing:
                self._refuse(400, "This is not a request of HTTP/1.1.")
        if not self._headers_done and self._head_bytes > self._limits.head_bytes:
            self._refuse(431, f"The headers are too large. At most {self._limits.head_bytes} bytes are accepted.")

    # The parser's calls

    def on_url(self, url: bytes) -> None:
        """Collect the target."""
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        name = name.lower()
        self._headers.append((name, value))
        self._count(len(name) + len(value))
        if name == b"x-request-id" and 0 < len(value) <= 128 and value.isascii():
            self._request_id = value
        elif name == b"expect" and value.lower() == b"100-continue":
            self._expects = True

    def on_headers_complete(self) -> None:
        """Refuse a body that says that it is too large before it is sent."""
        self._headers_done = True
        declared = next((v for n, v in self._headers if n == b"content-length"), b"0")
        if int(declared) > self._limits.body_bytes:
            self._too_large()
        elif self._clients.held + int(declared) > self._limits.held_bytes:
            self._busy()
        elif (
            self._parser.should_upgrade() and declared != b"0"
        ):  # the parser would take the body for the other protocol
            self._refuse(400, "Upgrading the connection is not supported here; send the request without Upgrade.")
        elif self._expects and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Collect the body up to the cap."""
        self._size += len(body)
        if self._size > self._limits.body_bytes:
            self._too_large()
        elif self._clients.held + len(body) > self._limits.held_bytes:
            self._busy()
        elif not self._closing:
            self._body.append(body)
            self._hold(len(body))

    def on_message_complete(self) -> None:
        """Hand the request on, or keep it until those before it are answered."""
        if self._closing:
            return
        try:
            url = httptools.parse_url(self._url)
            path, query = url.path or b"/", url.query or b""
        except httptools.HttpParserInvalidURLError:
            self._refuse(400, "The target of the request is no path.")
            return
        request = HttpRequest(
            self._parser.get_method().decode(),
            path,
            query,
            self._headers,
            self._body[0] if len(self._body) == 1 else b"".join(self._body),
            self._client,
            self._request_id or f"{_PREFIX}-{id(self):x}-{next(self._numbers)}".encode(),
            self._parser.should_keep_alive(),
            self._answer,
        )
        self._reset()
        self._ready.append(request)
        if self._timer is not None and not self._choked:
            self._timer.cancel()
        if not self._working and not self._choked:
            self._work()
        elif len(self._ready) > 8 and self._transport is not None:
            self._transport.pause_reading()

    # Our own

    def close_when_idle(self) -> None:
        """Close now, or after the answer that is under way."""
        if not self._working and self._transport is not None:
            self._transport.close()
        self._closing = True

    def _reset(self) -> None:
        self._url, self._headers, self._body = b"", [], []
        self._size = self._head_bytes = 0
        self._begun = self._headers_done = self._expects = False
        self._request_id = b""

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes:
            self._refuse(431, f"The headers are too large. At most {self._limits.head_bytes} bytes are accepted.")

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._late)

    def _late(self) -> None:
        if self._choked and self._transport is not None:
            before, self._unread = self._unread, self._transport.get_write_buffer_size()
            if self._unread < before:  # slowly, but it reads
                self._wait(self._limits.receive_s)
            else:
                self._transport.abort()
        elif self._begun:
            self._refuse(408, "The request did not come whole in time.")
        elif self._transport is not None:
            self._transport.close()

    def _too_large(self) -> None:
        self._refuse(413, f"The request is too large. At most {self._limits.body_bytes / 1e6:g} MB are accepted.")

    def _busy(self) -> None:
        self._refuse(429, "The service is busy: too much is being sent to it. Try again in a moment.", _SOON)

    def _hold(self, size: int) -> None:
        self._held += size
        self._clients.held += size

    def _refuse(self, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
        """Answer without asking a replica, and close: what follows on this connection cannot be understood."""
        if self._closing:
            return
        self._closing = True
        if self._transport is None or self._working:  # the answer that is under way is the last one then
            return
        body = error_body(message)
        head = _head(status, (_JSON, *headers), len(body), self._request_id or b"-", keep_alive=False)
        self._transport.write(head + body)
        # Reading goes on for a moment, unheeded: closing at once would reset the connection before the client has
        # read why.
        asyncio.get_running_loop().call_later(1.0, self._close)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _work(self) -> None:
        self._working = True
        self._current = self._ready.popleft()
        self._handle(self._current)

    def _answer(self, status: int, headers: Sequence[Sequence[bytes]], body: bytes) -> None:
        request, self._working = self._current, False
        if self._transport is None:
            return
        self._hold(-len(request.body))
        keep = request.keep_alive and not (self._closing and not self._ready)
        head = _head(status, headers, len(body), request.request_id, keep_alive=keep)
        self._transport.write(head if request.method == "HEAD" or status in (204, 304) else head + body)
        if not keep:
            self._closing = True
            self._transport.close()
        elif self._ready and not self._choked:
            self._go_on()
        elif not self._choked:
            self._rest()

    def _go_on(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()
            self._work()

    def _rest(self) -> None:
        self._wait(self._limits.idle_s if not self._begun else self._limits.receive_s)


def _head(status: int, headers: Sequence[Sequence[bytes]], size: int, request_id: bytes, *, keep_alive: bool) -> bytes:
    parts = [_REASONS.get(status) or f"HTTP/1.1 {status} \r\n".encode()]
    length = named = False
    for name, value in headers:
        length = length or name == b"content-length"
        named = named or name == b"x-request-id"
        parts.append(b"%b: %b\r\n" % (name, value))
    if not length and status not in (204, 304):
        parts.append(b"content-length: %d\r\n" % size)
    if not named:
        parts.append(b"x-request-id: %b\r\n" % request_id)
    parts.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
    return b"".join(parts)
