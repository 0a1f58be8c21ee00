"""The event loop of door and replicas: uvloop where there is one."""

from __future__ import annotations

import asyncio

__all__ = ["new_loop"]


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop; a third of the CPU a request with uvloop, which comes with ``ray[serve]``."""
    try:
        import uvloop
    except ImportError:  # there is none for this platform
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
