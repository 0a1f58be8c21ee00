"""Malformed requests against a real service over Ray: broken pictures, tensors, forms, encodings, paths and bytes.

    python -m tests.benchmarks.serve_fuzz --requests 5000

Every kind of `tests/serve/malformed.py` in turn, from one seed, over four connections at a time; every hundredth
request is a good one that has to be answered. Goal: 0 answers of 5xx, 0 tracebacks in the logs of Serve and its
workers, the service healthy at the end, and the memory of door and replicas within 10 % of what it was after a fifth;
it exits with 1 where one of them is missed.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import socket
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from autodl_ray.seeding import seed_for
from autodl_ray.serve.service import start, stop
from autodl_ray.spec import ServeSpec
from tests.serve.conftest import free_port
from tests.serve.malformed import KINDS, Sent, malformed
from tests.serve.tiny import make_bundle, picture

GOOD_EVERY = 100


def main() -> int:
    """Send them, and say how the service took it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder))
        spec = ServeSpec(port=free_port(), max_replicas=1, max_body_mb=5, max_pixels=4_000_000)
        service = start([bundle], spec)
        try:
            # From a process of its own: this one holds the door, whose memory is looked at.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                attacked = pool.submit(attack, spec.port, arguments.requests, arguments.seed, os.getpid())
                figures = attacked.result()
            figures["tracebacks"] = tracebacks()
        finally:
            stop()
    figures["url"] = service.url
    show(figures, as_json=arguments.json)
    missed = figures["5xx"] or figures["tracebacks"] or grown(figures["rss_mb"]) or not figures["healthy"]
    return 1 if missed else 0


def grown(rss_mb: dict[str, list[float]]) -> list[str]:
    """Return the processes that have more than 10 % more memory at the end than after a fifth."""
    return [name for name, sizes in rss_mb.items() if sizes[0] and sizes[-1] > 1.1 * sizes[0]]


def attack(port: int, count: int, seed: int, service: int) -> dict[str, Any]:
    """Send ``count`` requests; return the statuses by kind, and the memory after each fifth."""
    kinds = list(KINDS)
    statuses: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    failures: list[tuple[str, int, int]] = []

    def one(number: int) -> None:
        if number % GOOD_EVERY == 0:
            kind, number_seed, sent = "good", 0, Sent(body=picture("red", form="JPEG"))
        else:
            kind = kinds[number % len(kinds)]
            number_seed = seed_for(seed, kind, number)
            sent = malformed(kind, number_seed)
        status = ask(port, sent)
        statuses[kind][str(status) if status else "closed"] += 1
        if status >= 500 or (kind == "good" and status != 200):
            failures.append((kind, number_seed, status))

    samples = []
    with ThreadPoolExecutor(4) as pool:
        for fifth in range(5):
            list(pool.map(one, range(count * fifth // 5, count * (fifth + 1) // 5)))
            samples.append(memory(service))
    return {
        "requests": count,
        "5xx": sum(n for c in statuses.values() for s, n in c.items() if s.startswith("5")),
        "failures": failures[:20],
        "statuses": {kind: dict(sorted(counter.items())) for kind, counter in statuses.items()},
        "rss_mb": {name: [round(sample.get(name, 0) / 1e6, 1) for sample in samples] for name in samples[-1]},
        "healthy": ask(port, Sent("GET", "/v2/health/ready")) == 200 and not failures,
    }


def ask(port: int, sent: Sent) -> int:
    """Send one request over a connection of its own; return the status, 0 when it was closed without one."""
    raw = sent.raw if sent.raw is not None else as_bytes(sent)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR) if sent.raw is not None else None
            response = http.client.HTTPResponse(connection, method=sent.method)
            response.begin()
            response.read()
            return response.status
        except (http.client.HTTPException, ConnectionError, ValueError):
            return 0


def as_bytes(sent: Sent) -> bytes:
    """Write a request as it goes over the wire."""
    target = sent.path.encode("latin-1", "replace").replace(b" ", b"%20")
    lines = [sent.method.encode() + b" " + target + b" HTTP/1.1", b"host: 127.0.0.1", b"connection: close"]
    lines += [name.encode() + b": " + value.encode("latin-1") for name, value in sent.headers.items()]
    lines.append(b"content-length: %d" % len(sent.body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + sent.body


def memory(service: int) -> dict[str, float]:
    """Return the resident bytes of the replicas, and of the process that started them, which holds the door."""
    here = psutil.Process(service)
    found = {"door": float(here.memory_info().rss)}
    for process in here.children(recursive=True):
        title = " ".join(process.cmdline())
        if "ServeReplica" in title:
            found[f"replica {process.pid}"] = float(process.memory_info().rss)
    return found


def tracebacks() -> list[str]:
    """Return the traces in the logs of Serve and of its workers: the file and what the trace ends with."""
    from autodl_ray.runtime.cluster import ensure_ray

    folder = ensure_ray(num_gpus=0).folder
    assert folder is not None
    logs = [f for f in folder.rglob("*.*") if f.is_file() and (f.parent.name == "serve" or f.name.startswith("worker"))]
    assert any("replica" in file.name for file in logs), "there are no logs of replicas to look into"
    found = []
    for file in logs:
        _, *traces = file.read_text(errors="replace").split("Traceback (most recent call last)")
        for trace in traces:
            end = next((line for line in trace.splitlines()[1:] if line and not line.startswith(" ")), "")
            found.append(f"{file.name}: {end[:150]}")
    return found


def show(figures: dict[str, Any], *, as_json: bool) -> None:
    """Print the figures."""
    if as_json:
        print(json.dumps(figures, indent=1))
        return
    for kind, counter in sorted(figures["statuses"].items()):
        print(f"{kind:18} " + "  ".join(f"{status}: {count}" for status, count in counter.items()))
    for name, sizes in figures["rss_mb"].items():
        print(f"RSS {name:16} " + " → ".join(f"{size:.0f}" for size in sizes) + " MB")
    print(f"{figures['requests']} requests: {figures['5xx']} × 5xx, {len(figures['tracebacks'])} tracebacks, "
          f"{'healthy' if figures['healthy'] else 'NOT healthy'}")  # fmt: skip
    for name in grown(figures["rss_mb"]):
        print(f"  more than 10 % more memory: {name}")
    for trace in figures["tracebacks"]:
        print(f"  {trace}")
    for kind, number_seed, status in figures["failures"]:
        print(f"  {status}: malformed({kind!r}, {number_seed})")


if __name__ == "__main__":
    sys.exit(main())
