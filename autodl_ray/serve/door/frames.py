"""What door and replicas say to each other: MessagePack messages, each behind its length."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgpack

__all__ = ["FrameReader", "pack"]

_LENGTH = struct.Struct(">I")


def pack(message: list[Any]) -> bytes:
    """Return one message as it goes over the socket: 4 bytes of length, then MessagePack."""
    body: bytes = msgpack.packb(message)
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Puts messages together again from the pieces in which a socket hands them over."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[list[Any]]:
        """Yield the messages that are whole now."""
        rest = self._rest
        rest += data
        start, end = 0, len(rest)
        while end - start >= 4:
            size = _LENGTH.unpack_from(rest, start)[0]
            if end - start - 4 < size:
                break
            yield msgpack.unpackb(memoryview(rest)[start + 4 : start + 4 + size])
            start += 4 + size
        self._rest = rest[start:]
