"""Ten times more requests than the service can answer, for a minute, and what comes after.

    python -m tests.benchmarks.serve_overload --seconds 60

`at capacity` is the load of as many connections as a replica works on at a time (none is refused), each asking again
as soon as it was answered. Goal: 200 and 429 (with Retry-After) only; p99 of the 200 at most twice that at capacity;
within 10 s after the overload, half the capacity is answered as fast as before it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.serve_child import autodl_serve
from tests.benchmarks.serve_figures import options, show
from tests.benchmarks.serve_load import Outcome, closed_loop, open_loop, request

__all__: list[str] = []


def main() -> None:
    """Measure before, during and after, and print."""
    parser = options(__doc__, port=8768)
    parser.add_argument("--seconds", type=float, default=60, help="of the overload")
    parser.add_argument("--factor", type=float, default=10)
    parser.add_argument(
        "--connections", type=int, default=16, help="at capacity: as many as a replica works on at a time"
    )
    parser.add_argument("--work", type=int, default=60, help="of the model: multiplications of matrices a picture")
    arguments = parser.parse_args()
    show(_measure(arguments), as_json=arguments.json)


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    from tests.serve.tiny import make_bundle, picture

    data = request("/predict", picture("red"))
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder), work=arguments.work)
        with autodl_serve([bundle], "--num-replicas", "1", "--num-threads", "1", port=arguments.port):
            closed_loop(arguments.port, data, connections=4, seconds=2)
            full = closed_loop(arguments.port, data, connections=arguments.connections, seconds=8)
            calm_rate = full.per_s / 2
            before = open_loop(arguments.port, [data], rate=calm_rate, seconds=6)
            over = open_loop(arguments.port, [data], rate=arguments.factor * full.per_s, seconds=arguments.seconds)
            after = open_loop(arguments.port, [data], rate=calm_rate, seconds=16)
    return {
        "capacity_per_s": round(full.per_s, 1),
        "capacity_p99_ms": round(full.ms(0.99), 1),
        "refused_at_capacity": full.statuses[429],
        "asked": sum(over.statuses.values()),
        "statuses": dict(over.statuses),
        "without_retry_after": over.statuses[429] - over.retry_after,
        "answered_per_s": round(over.per_s, 1),
        "over_p99_ms": round(over.ms(0.99), 1),
        "p99_by_capacity": round(over.ms(0.99) / full.ms(0.99), 2),
        "before_p50_ms": round(before.ms(0.5), 1),
        "normal_after_s": _normal_after(after, before.ms(0.95)),
        "statuses_after": dict(after.statuses),
    }


def _normal_after(after: Outcome, usual_ms: float) -> float | str:
    """First second from which nine in ten answers are as fast as nineteen in twenty were before."""
    pairs = sorted(zip(after.due, after.latencies, strict=True))
    for second in range(15):
        part = [1000 * latency for due, latency in pairs if second <= due < second + 2]
        if part and sum(ms <= 1.5 * usual_ms for ms in part) >= 0.9 * len(part):
            return second
    return "never"


if __name__ == "__main__":
    main()
