"""Requests that no client should send: broken pictures, tensors, forms, encodings, paths and headers, from one seed."""

from __future__ import annotations

import gzip
import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.serve.tiny import picture

__all__ = ["KINDS", "Sent", "malformed"]


@dataclass
class Sent:
    """One request: header names and values as text, or all of it as it goes over the wire in ``raw``."""

    method: str = "POST"
    path: str = "/predict"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes | None = None


_STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, 1.5, 1e308, float("nan"), "", "x", "image", "UINT8", "\x00",
    "\ud800", "é" * 50, "A" * 5000, [], {}, [[]], [{}], {"": None}, [1, [2]], {"b64": 7}, {"url": "http://127.0.0.1:1/"},
    {"url": "file:///etc/passwd"}, [None] * 300,
)  # fmt: skip
_PATHS = (
    "/", "/predict", "/models", "/v1/models", "/v2", "/v2/models/colours", "/v2/models/colours/infer", "/metrics",
    "/docs", "/v1/models/colours:predict", "/v2/repository/index", "/v2/models/colours/stats", "/openapi.json",
)  # fmt: skip


def _mutated(value: Any, chance: random.Random, *, share: float) -> Any:
    """Put something strange in place of some nodes of a JSON value, or leave keys away."""
    if chance.random() < share:
        return chance.choice(_STRANGE)
    if isinstance(value, dict):
        return {k: _mutated(v, chance, share=share) for k, v in value.items() if chance.random() > share / 2}
    if isinstance(value, list) and len(value) < 20:
        return [_mutated(v, chance, share=share) for v in value]
    return value


def _broken(data: bytes, chance: random.Random) -> bytes:
    """Cut, flip, repeat or replace bytes."""
    way = chance.randrange(5)
    if way == 0:
        return data[: chance.randrange(len(data) + 1)]
    if way == 1:
        flipped = bytearray(data)
        for _ in range(chance.randrange(1, 12)):
            flipped[chance.randrange(len(flipped))] = chance.randrange(256)
        return bytes(flipped)
    if way == 2:
        return data + chance.randbytes(chance.randrange(200))
    if way == 3:
        at = chance.randrange(len(data))
        return data[:at] + chance.randbytes(chance.randrange(20)) + data[at:]
    return chance.randbytes(chance.randrange(300))


def _bomb(chance: random.Random) -> bytes:
    """Return a PNG of a few bytes that says it has up to 4 billion pixels a side."""
    side = struct.pack(">II", chance.choice((60_000, 2**31 - 1, 2**32 - 1, 0)), chance.choice((60_000, 1, 2**20)))
    header = b"IHDR" + side + bytes([8, 2, 0, 0, 0])
    data = b"IDAT" + zlib.compress(bytes(3000))
    chunks = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data))
    return b"\x89PNG\r\n\x1a\n" + chunks


def _pictures(chance: random.Random) -> Sent:
    form = chance.choice(("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"))
    data = _bomb(chance) if chance.random() < 0.15 else _broken(picture("red", form=form), chance)
    return Sent(
        headers={"content-type": chance.choice(("image/png", "", "text/html", "application/octet-stream"))}, body=data
    )


def _tensor(count: int = 1) -> dict[str, Any]:
    tensor = {
        "name": "image",
        "datatype": "UINT8",
        "shape": [count, 2, 2, 3],
        "data": [7] * 12 * count,
        "parameters": {},
    }
    return {"id": "1", "inputs": [tensor], "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}]}


def _tensors(chance: random.Random) -> Sent:
    document = _mutated(_tensor(chance.randrange(1, 4)), chance, share=0.12)
    text = json.dumps(document).encode()
    return Sent(path="/v2/models/colours/infer", body=_broken(text, chance) if chance.random() < 0.2 else text)


def _binary_tensors(chance: random.Random) -> Sent:
    document = _tensor()
    raw = bytes(12)
    document["inputs"][0].pop("data")
    document["inputs"][0]["parameters"] = {
        "binary_data_size": chance.choice((12, 12, 11, 13, 0, -1, 2**40, "12", None))
    }
    if chance.random() < 0.5:
        document["inputs"][0] |= {"datatype": "BYTES", "shape": [chance.choice((1, 2))]}
        raw = struct.pack("<I", chance.choice((0, 3, 2**31, 2**32 - 1))) + chance.randbytes(8)
    text = json.dumps(_mutated(document, chance, share=0.04)).encode()
    length = chance.choice((str(len(text)), str(len(text) + 1), "-1", "0", "x", "9" * 30, "²"))
    headers = {"inference-header-content-length": length}
    return Sent(path="/v2/models/colours/infer", headers=headers, body=text + raw[: chance.randrange(len(raw) + 1)])


@cache
def _gzip_bomb() -> bytes:
    return gzip.compress(bytes(30_000_000), 1)


def _encoded(chance: random.Random) -> Sent:
    plain = picture("blue")
    packed = chance.choice((gzip.compress(plain), zlib.compress(plain), _gzip_bomb()))
    encoding = chance.choice(("gzip", "deflate", "br", "identity", "gzip, gzip", "", "GZIP", "\xff"))
    body = packed if chance.random() < 0.5 else _broken(packed, chance)
    return Sent(headers={"content-encoding": encoding}, body=body)


def _forms(chance: random.Random) -> Sent:
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    form = (part + picture("red") + b"\r\n") * chance.choice((1, 2, 400)) + b"--b--\r\n"
    rest = ("; boundary=b", "", "; boundary=", ";b", "; boundary=b; charset=utf-99", "; boundary=\xff")
    kind = "multipart/form-data" + chance.choice((*rest, "; boundary=" + "x" * 300))
    return Sent(headers={"content-type": kind}, body=_broken(form, chance) if chance.random() < 0.8 else form)


def _json_pictures(chance: random.Random) -> Sent:
    document = chance.choice(
        ({"image": "iVBORw0="}, {"images": ["iVBORw0=", {"b64": "AA=="}]}, {"instances": [{"b64": "AA=="}]}, {"url": "http://x/"})
    )  # fmt: skip
    text = json.dumps(_mutated({**document, "top_k": 3, "heatmap": True}, chance, share=0.2)).encode()
    body = (
        text
        if chance.random() < 0.8
        else chance.choice((b"[" * 50_000, b'{"a":' * 9_000, b"\xff\xfe", b"1" * 9000, b"null"))
    )
    return Sent(headers={"content-type": "application/json"}, body=body)


def _paths(chance: random.Random) -> Sent:
    path = chance.choice(_PATHS)
    tail = chance.choice(
        ("", "/", "/..%2f..%2fetc/passwd", "%00", "%ff%fe", "/versions/9", "x" * 3000, "?top_k=-1", "?top_k=\u00b2")
    )
    query = chance.choice(
        ("", "?model=%00", "?top_k=99999999999999999999", "?heatmap=maybe", "?" + "&".join("a=1" for _ in range(80)))
    )
    method = chance.choice(("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"))
    names = ("authorization", "origin", "x-request-id", "x-request-timeout-seconds", "accept-encoding", "x-request-key")
    values = ("", "Bearer", "\xff", "-1", "nan", "0", "1e-9", "gzip;q=x", "x" * 2000, "Bearer " + "y" * 500)
    headers = {chance.choice(names): chance.choice(values)}
    safe = path + tail.encode("ascii", "replace").decode() + (query if "?" not in tail else "")
    return Sent(method, safe, headers, chance.randbytes(chance.randrange(40)))


def _wire(chance: random.Random) -> Sent:
    host = b"Host: 127.0.0.1\r\n"
    return Sent(
        raw=chance.choice(
            (
                chance.randbytes(200) + b"\r\n\r\n",
                b"POST /predict HTTP/1.1\r\n" + host + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello",
                b"POST /predict HTTP/1.1\r\n" + host + b"Content-Length: -5\r\n\r\n",
                b"POST /predict HTTP/1.1\r\n" + host + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
                b"POST /predict HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
                b"POST /predict HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello",
                b"GET / HTTP/9.9\r\n" + host + b"\r\n",
                b"GET http://[::1/ HTTP/1.1\r\n" + host + b"\r\n",
                b"GET / HTTP/1.1\r\n" + host + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
                b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(3000)) + b"\r\n",
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nBad Header\x00: y\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(60),
                b"GET / HTTP/1.1\r\n" + host + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            )
        )
    )


KINDS: dict[str, Callable[[random.Random], Sent]] = {
    "pictures": _pictures,
    "tensors": _tensors,
    "binary tensors": _binary_tensors,
    "encodings": _encoded,
    "forms": _forms,
    "JSON pictures": _json_pictures,
    "paths and headers": _paths,
    "wire": _wire,
}
"""What is broken, and who makes it."""


def malformed(kind: str, seed: int) -> Sent:
    """Return one request of a kind."""
    return KINDS[kind](random.Random(seed))
