"""Snapshots of small folders, and an S3 server."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.data.formats import read
from autodl_ray.data.versions import Snapshot, snapshot
from autodl_ray.runtime import Context
from autodl_ray.spec import SplitSpec

BUCKET = "data-sets"


def take(root: Path, context: Context, *, split: SplitSpec | None = None, **options: Any) -> Snapshot:
    """Take a snapshot of a folder."""
    listing = read(root, cache=context.store.folder("cache/formats"))
    return snapshot(listing, split=split or SplitSpec(), context=context, **options)


def http_call(port: int, method: str, path: str, body: bytes = b"") -> bytes:
    """One request on one connection of its own: a plain HTTP stream."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body=body, headers={"x-amz-acl": "public-read"})
        answer = connection.getresponse()
        data = answer.read()
        assert answer.status in (200, 204), data[:300]
        return data
    finally:
        connection.close()


def address(port: int, prefix: str = "set") -> str:
    """The address of a folder of the server, as a user gives it."""
    return f"s3://key:secret@{BUCKET}/{prefix}?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of a real S3 server (moto's standalone one) on this machine."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = int(server.get_host_and_port()[1])
    http_call(port, "PUT", f"/{BUCKET}")
    yield port
    server.stop()
