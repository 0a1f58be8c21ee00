"""Served requests a second by those of the bare Predictor loop, on the same cores; prints JSON.

    python tests/benchmarks/serve_overhead.py runs/NAME/bundle a.jpg --rounds 3 --connections 4 --cores 2

The load generator runs on the same cores, as the server's only company.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil


def main() -> None:
    """Measure bare and served in turns, so that other work on the machine meets both, and print the medians."""
    arguments = _arguments()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    with _service(arguments):
        bare, ask = _bare_call(arguments), _served_call(arguments)
        rounds = [
            (
                _repeat(bare, workers=arguments.cores, seconds=arguments.seconds),
                _repeat(ask, workers=arguments.connections, seconds=arguments.seconds),
            )
            for _ in range(arguments.rounds)
        ]
    latencies = [t for _, served in rounds for t in served[1]]
    figures = {
        "cores": arguments.cores,
        "replicas": arguments.replicas,
        "threads_a_replica": arguments.threads,
        "connections": arguments.connections,
        "bare_per_s": round(statistics.median(b[0] for b, _ in rounds), 1),
        "served_per_s": round(statistics.median(s[0] for _, s in rounds), 1),
        "ratio": round(statistics.median(s[0] / b[0] for b, s in rounds), 3),
        "ratios": [round(s[0] / b[0], 2) for b, s in rounds],
        "cpu_ms_bare": round(statistics.median(b[2] for b, _ in rounds), 2),
        "cpu_ms_served": round(statistics.median(s[2] for _, s in rounds), 2),
        "cpu_ratio": round(statistics.median(b[2] / s[2] for b, s in rounds), 3),
        "p50_ms": round(1000 * statistics.median(latencies), 1),
        "p99_ms": round(1000 * float(np.quantile(latencies, 0.99)), 1),
    }
    print(json.dumps(figures))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


@contextlib.contextmanager
def _service(arguments: argparse.Namespace) -> Iterator[None]:
    from autodl_ray.serve.service import start, stop
    from autodl_ray.spec import ServeSpec

    spec = ServeSpec(
        port=arguments.port,
        min_replicas=arguments.replicas,
        max_replicas=arguments.replicas,
        num_threads=arguments.threads,
    )
    start([arguments.bundle], spec, num_cpus=arguments.cores)
    try:
        yield
    finally:
        stop()


def _bare_call(arguments: argparse.Namespace) -> Callable[[], object]:
    """Decode + Predictor, one thread of onnxruntime a call."""
    from autodl_ray.images import decode_image
    from autodl_ray.models.predictor import Predictor

    predictor = Predictor.open(arguments.bundle, num_threads=1)
    photo = arguments.photo.read_bytes()
    return lambda: predictor([decode_image(photo)])


def _served_call(arguments: argparse.Namespace) -> Callable[[], object]:
    """One request on the kept connection of the calling thread."""
    photo, local = arguments.photo.read_bytes(), threading.local()

    def ask() -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", arguments.port)
        local.connection.request("POST", "/predict", photo)
        response = local.connection.getresponse()
        response.read()
        if response.status != 200:
            raise RuntimeError(f"the service answered {response.status}")

    return ask


def _repeat(work: Callable[[], object], *, workers: int, seconds: float) -> tuple[float, list[float], float]:
    """Calls a second, the seconds of each, and the CPU milliseconds a call took in this process and all below it."""
    work()
    began, cpu = time.perf_counter(), _cpu_seconds()

    def loop(_: int) -> list[float]:
        times = []
        while (started := time.perf_counter()) < began + seconds:
            work()
            times.append(time.perf_counter() - started)
        return times

    with ThreadPoolExecutor(workers) as pool:
        times = [t for part in pool.map(loop, range(workers)) for t in part]
    return len(times) / seconds, times, 1000 * (_cpu_seconds() - cpu) / len(times)


def _cpu_seconds() -> float:
    """CPU time of this process and all below it: unlike the wall clock it does not feel the machine's other work."""
    me = psutil.Process()
    times = [p.cpu_times() for p in (me, *me.children(recursive=True))]
    return sum(t.user + t.system for t in times)


if __name__ == "__main__":
    main()
