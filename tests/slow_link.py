"""A long link: a TCP proxy whose connections have a round trip time and a window, as real ones do."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["slow_link"]


@contextmanager
def slow_link(port: int, *, round_trip_s: float, window: int) -> Iterator[int]:
    """Yield the port of a proxy to 127.0.0.1:``port``.

    Every byte arrives half a round trip after it was sent, in both directions, and a connection has at most
    ``window`` bytes on the way in each direction: the next are sent when the first are acknowledged, a round trip
    later. So one connection carries ``window / round_trip_s`` bytes a second, however wide the link is; several
    connections carry several times that. A new connection costs a round trip.
    """
    loop = asyncio.new_event_loop()
    link = _Link(port, round_trip_s, window)
    server = loop.run_until_complete(asyncio.start_server(link.serve, "127.0.0.1", 0, limit=window))
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="slow-link")
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Link:
    def __init__(self, port: int, round_trip_s: float, window: int) -> None:
        self.port, self.round_trip_s, self.window = port, round_trip_s, window

    async def serve(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        await asyncio.sleep(self.round_trip_s)
        far_in, far_out = await asyncio.open_connection("127.0.0.1", self.port, limit=self.window)
        try:
            await asyncio.gather(self.carry(near_in, far_out), self.carry(far_in, near_out))
        except (OSError, asyncio.CancelledError):  # the other end went away, or the proxy ends
            pass
        finally:
            near_out.close()
            far_out.close()

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Carry one direction."""
        loop = asyncio.get_running_loop()
        waiting: deque[bytes] = deque()
        on_the_way = 0
        acknowledged = asyncio.Event()

        def arrive() -> None:
            data = waiting.popleft()
            if not sink.is_closing():
                sink.write(data) if data else sink.write_eof()

        def acknowledge(size: int) -> None:
            nonlocal on_the_way
            on_the_way -= size
            acknowledged.set()

        while True:
            while on_the_way > self.window // 2:  # else a window of a few bytes makes more of them (RFC 813)
                acknowledged.clear()
                await acknowledged.wait()
            data = await source.read(self.window - on_the_way)
            on_the_way += len(data)
            waiting.append(data)
            loop.call_later(self.round_trip_s / 2, arrive)
            loop.call_later(self.round_trip_s, acknowledge, len(data))
            if not data:
                await asyncio.sleep(self.round_trip_s)
                return
