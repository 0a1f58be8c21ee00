"""A light load generator: one process, raw sockets on uvloop, either as fast as answers come or at a given rate."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Outcome", "closed_loop", "open_loop", "request"]


@dataclass
class Outcome:
    """What came back.

    Attributes:
        seconds: Of the whole run.
        latencies: Seconds of each 200; in an open loop since the request was due.
        due: When each of them was due, seconds since the start.
        statuses: How often each status came; 0: the connection broke.
        bodies: Of the first answers that are no 200.
        retry_after: How many of those say when to ask again.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    due: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    bodies: list[bytes] = field(default_factory=list)
    retry_after: int = 0

    @property
    def per_s(self) -> float:
        """Answers with 200 a second."""
        return self.statuses[200] / self.seconds

    def ms(self, share: float) -> float:
        """Quantile of the latencies in milliseconds."""
        return 1000 * float(np.quantile(self.latencies, share)) if self.latencies else float("nan")


def request(path: str, body: bytes, *, host: str = "127.0.0.1", headers: Sequence[str] = ()) -> bytes:
    """Return a POST as it goes over the wire."""
    head = [f"POST {path} HTTP/1.1", f"host: {host}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class _Client(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""
        self._need = -1
        self._answer: asyncio.Future[tuple[int, bytes, bytes]] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((0, b"", b""))

    def ask(self, data: bytes) -> asyncio.Future[tuple[int, bytes, bytes]]:
        self._answer = asyncio.get_running_loop().create_future()
        if self.transport is None:
            self._answer.set_result((0, b"", b""))
        else:
            self.transport.write(data)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if self._need < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            self._need = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) >= self._need:
            whole, self._buffer, self._need = self._buffer[: self._need], self._buffer[self._need :], -1
            if self._answer is not None and not self._answer.done():
                head, _, body = whole.partition(b"\r\n\r\n")
                self._answer.set_result((int(whole[9:12]), head, body))


def _note(outcome: Outcome, answer: tuple[int, bytes, bytes], due: float, began: float) -> None:
    status, head, body = answer
    outcome.statuses[status] += 1
    if status == 200:
        outcome.latencies.append(time.perf_counter() - due)
        outcome.due.append(due - began)
    else:
        outcome.retry_after += b"retry-after" in head.lower()
        if len(outcome.bodies) < 5:
            outcome.bodies.append(body[:200])


async def _connect(host: str, port: int) -> _Client:
    _, client = await asyncio.get_running_loop().create_connection(_Client, host, port)
    return client


def closed_loop(
    port: int, data: bytes, *, connections: int, seconds: float, count: int | None = None, host: str = "127.0.0.1"
) -> Outcome:
    """Ask again as soon as an answer came, on so many connections, for so long or until ``count`` answers."""

    async def run() -> Outcome:
        outcome, began = Outcome(), time.perf_counter()
        left = count if count is not None else 2**62

        async def one() -> None:
            nonlocal left
            client = await _connect(host, port)
            while time.perf_counter() - began < seconds and left > 0:
                left -= 1
                due = time.perf_counter()
                answer = await client.ask(data)
                _note(outcome, answer, due, began)
                if answer[0] == 0:
                    client = await _connect(host, port)
            if client.transport is not None:
                client.transport.close()

        await asyncio.gather(*(one() for _ in range(connections)))
        outcome.seconds = time.perf_counter() - began
        return outcome

    return _run(run())


def open_loop(
    port: int,
    data: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    host: str = "127.0.0.1",
    timeout_s: float = 60.0,
) -> Outcome:
    """Ask at a steady rate whatever comes back, taking the requests of ``data`` in turn; connections are reused."""

    async def run() -> Outcome:
        outcome, began = Outcome(), time.perf_counter()
        idle: list[_Client] = []
        tasks: set[asyncio.Task[None]] = set()

        async def one(due: float, number: int) -> None:
            client = idle.pop() if idle else None
            try:
                if client is None or client.transport is None:
                    client = await _connect(host, port)
                answer = await asyncio.wait_for(client.ask(data[number % len(data)]), timeout_s)
            except (OSError, TimeoutError):
                answer = (0, b"", b"")
            _note(outcome, answer, due, began)
            if client is not None and client.transport is not None:
                idle.append(client)

        number = 0
        while (due := number / rate) < seconds:
            ahead = due - (time.perf_counter() - began)
            if ahead > 0:
                await asyncio.sleep(ahead)
            task = asyncio.get_running_loop().create_task(one(began + due, number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        if tasks:
            await asyncio.wait(tasks)
        outcome.seconds = time.perf_counter() - began
        for client in idle:
            if client.transport is not None:
                client.transport.close()
        return outcome

    return _run(run())


def _run(work: object) -> Outcome:
    import uvloop

    return uvloop.run(work)  # type: ignore[no-any-return, arg-type]
