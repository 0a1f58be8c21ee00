"""New versions under 50 requests a second: a good one, one that does not load, one that fails its probes.

    python -m tests.benchmarks.serve_rollout

Goal: 0 failed requests in all three, and the good one takes over.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.serve_figures import options
from tests.benchmarks.serve_load import Outcome, open_loop, request

__all__: list[str] = []


def main() -> None:
    """Run the three cases and print a row each."""
    parser = options(__doc__, port=8767)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=20, help="of one case")
    parser.add_argument("--replicas", type=int, default=2)
    arguments = parser.parse_args()
    rows = _run(arguments)
    if arguments.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


def _run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from autodl_ray.serve.service import start, stop
    from autodl_ray.spec import ServeSpec
    from tests.serve.tiny import make_bundle

    with TemporaryDirectory() as folder:
        root = Path(folder)
        count = arguments.replicas
        spec = ServeSpec(port=arguments.port, min_replicas=count, max_replicas=count)
        service = start([make_bundle(root / "0", version="first0000000")], spec)
        try:
            return [
                _case(service, arguments, "good", make_bundle(root / "1", version="good00000000")),
                _case(service, arguments, "no model", make_bundle(root / "2", version="broken000000", model=b"x")),
                _case(service, arguments, "wrong", make_bundle(root / "3", version="wrong0000000", smoke="wrong")),
            ]
        finally:
            stop()


def _case(service: Any, arguments: argparse.Namespace, name: str, bundle: Path) -> dict[str, Any]:
    from autodl_ray.serve.goal import NextVersion
    from autodl_ray.serve.rollout import RolloutRules
    from tests.serve.tiny import picture

    rules = RolloutRules(min_requests=50, min_seconds=5)
    outcomes: list[Outcome] = []
    data = [request("/predict", picture("red"), headers=[f"x-request-key: client-{i}"]) for i in range(100)]

    def load() -> None:
        outcomes.append(open_loop(arguments.port, data, rate=arguments.rate, seconds=arguments.seconds))

    thread = threading.Thread(target=load)
    thread.start()
    time.sleep(2)
    began = time.monotonic()
    identity = f"{name}-{began:.0f}"
    service.roll_out("colours", NextVersion(bundle=str(bundle), rollout=identity, share=0.2, rules=rules))
    stages = _decided(service, identity, until=began + arguments.seconds)
    seconds = time.monotonic() - began
    thread.join()
    (outcome,) = outcomes
    failed = sum(count for status, count in outcome.statuses.items() if status != 200)
    return {
        "case": name,
        "requests": sum(outcome.statuses.values()),
        "failed": failed,
        "stages": ", ".join(sorted(stages)),
        "decided_s": round(seconds, 1),
        "p50_ms": round(outcome.ms(0.5), 1),
        "p99_ms": round(outcome.ms(0.99), 1),
    }


def _decided(service: Any, identity: str, *, until: float) -> set[str]:
    while time.monotonic() < until:
        states = [s["models"]["colours"]["next"] for s in service.status()["states"].values() if s]
        stages = {"" if s is None or s["rollout"] != identity else s["stage"] for s in states}
        if stages <= {"took over", "rolled back"} and len(stages) == 1 and states:
            return stages
        time.sleep(0.2)
    return {"undecided"}


if __name__ == "__main__":
    main()
