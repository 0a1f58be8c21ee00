"""`autodl data push` and `pull` against one plain HTTP stream of the same bytes, over a link of 20 ms.

Run from the repository's root: ``python -m tests.benchmarks.remote_transfer [MEGABYTES] [WINDOW_KB]``. An S3 server
(moto's standalone one) and the link are processes of their own. The link (`tests/slow_link.py`) takes 10 ms in each
direction and has at most WINDOW_KB on the way in each connection, as TCP does: one connection carries WINDOW_KB / 20 ms
(3.3 MB/s with the 64 kB of plain TCP), however wide the link is. Compared are:

- push: the whole command, start of Python included, against one PUT of all bytes as one object on one connection;
- pull: the whole command into an empty store, hashing and writing included, against one GET of that object into memory.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.data.versions.conftest import BUCKET, address, http_call
from tests.slow_link import slow_link

ROUND_TRIP_S = 0.02
PHOTO_BYTES = 60_000


def main(megabytes: int = 64, window_kb: int = 64) -> None:
    """Measure once and print the ratios."""
    with tempfile.TemporaryDirectory() as temporary, _server() as server, _link(server, window_kb * 1024) as port:
        folder = Path(temporary)
        http_call(server, "PUT", f"/{BUCKET}")
        everything = _make_photos(folder / "photos", megabytes)
        _autodl("snapshot", str(folder / "photos"), "--store", str(folder / "here"))
        one_put = _seconds(lambda: http_call(port, "PUT", f"/{BUCKET}/one", everything))
        push = _seconds(lambda: _autodl("push", "latest", address(port), "--store", str(folder / "here")))
        one_get = _seconds(lambda: http_call(port, "GET", f"/{BUCKET}/one"))
        pull = _seconds(lambda: _autodl("pull", "latest", address(port), "--store", str(folder / "there")))
        _autodl("verify", "--store", str(folder / "there"))
    size = len(everything) / 1e6
    print(f"{size:.0f} MB, round trip {ROUND_TRIP_S * 1000:.0f} ms, {window_kb} kB on the way a connection")
    print(f"push {push:.2f} s ({size / push:.0f} MB/s), one PUT {one_put:.2f} s: {one_put / push:.2f} times as fast")
    print(f"pull {pull:.2f} s ({size / pull:.0f} MB/s), one GET {one_get:.2f} s: {one_get / pull:.2f} times as fast")


def _make_photos(folder: Path, megabytes: int) -> bytes:
    luck = random.Random(0)
    parts = []
    for i in range(megabytes * 1_000_000 // PHOTO_BYTES):
        (folder / f"class {i % 10}").mkdir(parents=True, exist_ok=True)
        parts.append(luck.randbytes(PHOTO_BYTES))
        (folder / f"class {i % 10}" / f"{i}.jpg").write_bytes(parts[-1])
    return b"".join(parts)


def _autodl(*arguments: str) -> None:
    code = "import sys; from autodl_ray.cli import main; main(['data', *sys.argv[1:]])"
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


@contextmanager
def _server() -> Iterator[int]:
    code = (
        "import time\n"
        "from moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)\n"
        "server.start()\n"
        "print(server.get_host_and_port()[1], flush=True)\n"
        "time.sleep(3600)\n"
    )
    with _process([sys.executable, "-c", code]) as port:
        yield port


@contextmanager
def _link(server: int, window: int) -> Iterator[int]:
    with _process([sys.executable, "-m", "tests.benchmarks.remote_transfer", "link", str(server), str(window)]) as port:
        yield port


def _serve_link(server: int, window: int) -> None:
    with slow_link(server, round_trip_s=ROUND_TRIP_S, window=window) as port:
        print(port, flush=True)
        time.sleep(3600)


@contextmanager
def _process(command: list[str]) -> Iterator[int]:
    """Start a process that prints its port, and end it."""
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=nowhere, text=True)
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["link"]:
        _serve_link(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:]))
