"""A burst that one replica cannot take: how soon there are more, and how soon they are gone again.

    python -m tests.benchmarks.serve_burst --replicas 2

Goal: up within 10 s, down within 60 s, one change each way (no flapping), no failed request.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.serve_figures import options, show
from tests.benchmarks.serve_load import closed_loop, request

__all__: list[str] = []


def main() -> None:
    """Measure and print."""
    parser = options(__doc__, port=8770)
    parser.add_argument("--replicas", type=int, default=2, help="at most")
    parser.add_argument("--from-zero", action="store_true", help="begin without a replica")
    parser.add_argument("--burst", type=float, default=25, help="seconds of the burst")
    arguments = parser.parse_args()
    show(_measure(arguments), as_json=arguments.json)


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    from autodl_ray.serve.service import start, stop
    from autodl_ray.spec import ServeSpec
    from tests.serve.tiny import make_bundle, picture

    data = request("/predict", picture("red"))
    least = 0 if arguments.from_zero else 1
    spec = ServeSpec(port=arguments.port, min_replicas=least, max_replicas=arguments.replicas, num_threads=1)
    with tempfile.TemporaryDirectory() as folder:
        service = start([make_bundle(Path(folder), work=60)], spec)
        try:
            counts: list[tuple[float, int]] = []
            over = threading.Event()
            watcher = threading.Thread(target=_watch, args=(service, counts, over))
            watcher.start()
            if arguments.from_zero:
                _until(lambda: bool(counts) and counts[-1][1] == 0, 120)
            began = time.monotonic()
            first = closed_loop(arguments.port, data, connections=1, seconds=60, count=1)
            burst = closed_loop(arguments.port, data, connections=12, seconds=arguments.burst)
            ended = time.monotonic()
            _until(lambda: counts[-1][1] <= least, 120)
            over.set()
            watcher.join()
        finally:
            stop()
    ups = [at - began for at, count in counts if count == arguments.replicas and at > began]
    downs = [at - ended for at, count in counts if count <= least and at > ended]
    numbers = [count for at, count in counts if at > began]
    changes = sum(a != b for a, b in itertools.pairwise(numbers))
    return {
        "first_answer_s": round(first.ms(0.5) / 1000, 2),
        "up_s": round(min(ups), 1) if ups else None,
        "down_s": round(min(downs), 1) if downs else None,
        "changes": changes,
        "statuses": dict(first.statuses + burst.statuses),
    }


def _watch(service: Any, counts: list[tuple[float, int]], over: threading.Event) -> None:
    while not over.wait(0.1):
        counts.append((time.monotonic(), service.status()["replicas"]))


def _until(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)


if __name__ == "__main__":
    main()
