"""Reading a request's body: never more than the cap, compressed or not."""

from __future__ import annotations

import zlib

from autodl_ray.serve.http.answers import Refusal
from autodl_ray.serve.http.calls import Call

__all__ = ["inflate", "read_body"]

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


async def read_body(call: Call, *, max_bytes: int) -> bytes:
    """Read the whole body, stop at the cap, and inflate it where it came compressed.

    Args:
        call: The request.
        max_bytes: Cap of what is sent and of what it is inflated to.

    Raises:
        Refusal: 413, as soon as the declared, the received or the inflated size is above ``max_bytes``;
            415 for an unknown encoding; 400 for a damaged one.
    """
    declared = call.header(b"content-length")
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > max_bytes):
        raise _too_large(max_bytes)
    body = await _receive(call, max_bytes)
    call.bytes_in = len(body)
    encoding = call.headers.get(b"content-encoding")
    return body if encoding is None else inflate(body, encoding.decode("latin-1"), max_bytes=max_bytes)


def inflate(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """Undo ``Content-Encoding``: gzip, deflate (zlib's format) or identity.

    Raises:
        Refusal: 413, 415 or 400, see :func:`read_body`.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOWS:
        raise Refusal(415, f"The content encoding {name[:40]!r} is not supported; gzip, deflate and identity are.")
    unpack = zlib.decompressobj(_WINDOWS[name])
    try:
        plain = unpack.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise Refusal(400, f"The body is not {name}: {error}.") from error
    if len(plain) > max_bytes:
        raise _too_large(max_bytes)
    if not unpack.eof or unpack.unused_data:
        raise Refusal(400, f"The {name} body is truncated, or something follows it.")
    return plain


async def _receive(call: Call, max_bytes: int) -> bytes:
    message = await call.receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    parts, size = [], 0
    while message["type"] == "http.request":
        part = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await call.receive()
    raise Refusal(400, "The client went away before its request was whole.")


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(413, f"The request is too large. At most {max_bytes / 1e6:g} MB are accepted.")
