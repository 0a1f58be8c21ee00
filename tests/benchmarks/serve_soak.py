"""Many requests, and the memory of every process: it has to stay flat.

    python -m tests.benchmarks.serve_soak --requests 100000

Goal: resident memory of replicas and door (it lives in the process of `autodl serve`) within 5 % of what it was after
the first tenth.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.serve_child import Child, autodl_serve
from tests.benchmarks.serve_figures import options, show
from tests.benchmarks.serve_load import closed_loop, request

__all__: list[str] = []


def main() -> None:
    """Ask in ten parts, look at the memory after each, and print."""
    parser = options(__doc__, port=8769)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=8)
    arguments = parser.parse_args()
    show(_measure(arguments), as_json=arguments.json)


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    from tests.serve.tiny import make_bundle, picture

    data = request("/predict", picture("red", size=(64, 48), form="JPEG"))
    memory: list[dict[str, float]] = []
    statuses: dict[int, int] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        autodl_serve([make_bundle(Path(folder))], "--num-replicas", "1", port=arguments.port) as child,
    ):
        for _ in range(10):
            outcome = closed_loop(
                arguments.port,
                data,
                connections=arguments.connections,
                seconds=3600,
                count=arguments.requests // 10,
            )
            for status, count in outcome.statuses.items():
                statuses[status] = statuses.get(status, 0) + count
            memory.append(_memory(child))
    grown = {name: round(memory[-1][name] / memory[0][name] - 1, 4) for name in memory[0]}
    return {
        "statuses": statuses,
        "memory_mb": memory,
        "grown": grown,
        "flat": all(abs(g) <= 0.05 for g in grown.values()),
    }


def _memory(child: Child) -> dict[str, float]:
    """Resident megabytes of the door's process and of the replicas together."""
    replicas = sum(process.memory_info().rss for process in child.replicas())
    return {"door": round(child.process.memory_info().rss / 1e6, 1), "replicas": round(replicas / 1e6, 1)}


if __name__ == "__main__":
    main()
