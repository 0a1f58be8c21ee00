"""Served requests a second by those of a bare loop and of rivals, on the same cores, load generator included.

    python -m tests.benchmarks.serve_overhead --model lite0          # ÷ bare loop: FP32 >= 0.92, INT8 >= 0.80
    python -m tests.benchmarks.serve_overhead --model tiny --rivals fastapi,litserve --litserve VENV/bin/python

Everything runs in turns, ``--rounds`` times, so that other work on the machine meets all of them; the medians of the
ratios of each round are printed. ``cpu_ms`` is user and system time of the server a request, which the machine's other
work does not touch. Goals: tiny ÷ FastAPI + onnxruntime >= 0.6, ÷ LitServe >= 1.5; p99 at 70 % load ÷ p50 <= 3.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.serve_bundles import lite0_bundles, photo
from tests.benchmarks.serve_child import Child, autodl_serve, rival
from tests.benchmarks.serve_load import closed_loop, open_loop, request

__all__: list[str] = []


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    with tempfile.TemporaryDirectory() as root:
        bundles = _bundles(arguments, Path(root))
        picture = arguments.photo.read_bytes() if arguments.photo else photo(**_size(arguments.model))
        photo_file = Path(root) / "photo.jpg"
        photo_file.write_bytes(picture)
        results = [_one(arguments, kind, folder, photo_file) for kind, folder in bundles.items()]
    if arguments.json:
        print(json.dumps(results))
        return
    for result in results:
        for name, value in result.items():
            print(f"{name:<28}{value}")
        print()


def _one(arguments: argparse.Namespace, kind: str, bundle: Path, photo_file: Path) -> dict[str, Any]:
    raw = photo_file.read_bytes()
    data = dict.fromkeys(("served", "fastapi"), request("/predict", raw))
    document = json.dumps({"image": base64.b64encode(raw).decode()}).encode()
    data["litserve"] = request("/predict", document, headers=["content-type: application/json"])
    port, rounds = arguments.port, []
    with contextlib.ExitStack() as stack:
        threads = [] if arguments.threads is None else ["--num-threads", str(arguments.threads)]
        options = ["--num-replicas", str(arguments.replicas), *threads]
        servers = {"served": stack.enter_context(autodl_serve([bundle], *options, port=port))}
        for number, name in enumerate(arguments.rivals):
            python = arguments.litserve if name == "litserve" else sys.executable
            large = arguments.model != "tiny"
            servers[name] = stack.enter_context(
                rival(name, bundle, port=port + 1 + number, python=python, threads=large)
            )
        for name, server in servers.items():
            warm = closed_loop(server.port, data[name], connections=arguments.connections, seconds=1.0)
            assert set(warm.statuses) == {200}, (name, warm.statuses, warm.bodies)
        for _ in range(arguments.rounds):
            figures = {name: _served(server, data[name], arguments) for name, server in servers.items()}
            figures["bare"] = _bare(bundle, photo_file, arguments)
            rounds.append(figures)
        calm = _calm(servers["served"], data["served"], rounds)
    return {"model": kind, **_summary(rounds), **calm}


def _served(server: Child, data: bytes, arguments: argparse.Namespace) -> dict[str, float]:
    before = server.cpu_s()
    outcome = closed_loop(server.port, data, connections=arguments.connections, seconds=arguments.seconds)
    assert set(outcome.statuses) == {200}, (outcome.statuses, outcome.bodies)
    cpu = 1000 * (server.cpu_s() - before) / outcome.statuses[200]
    return {"per_s": outcome.per_s, "cpu_ms": cpu, "p50": outcome.ms(0.5), "p99": outcome.ms(0.99)}


def _bare(bundle: Path, photo_file: Path, arguments: argparse.Namespace) -> dict[str, float]:
    line = [sys.executable, "-m", "tests.benchmarks.serve_rivals", "bare", str(bundle), str(photo_file)]
    line += [str(arguments.seconds), str(arguments.cores)]
    # A session of its own, as the servers have: Linux shares the CPU out among sessions before processes.
    done = subprocess.run(line, capture_output=True, check=True, start_new_session=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _calm(server: Child, data: bytes, rounds: list[dict[str, dict[str, float]]]) -> dict[str, float]:
    """Latency at 70 % of what it can do."""
    rate = 0.7 * statistics.median(r["served"]["per_s"] for r in rounds)
    outcome = open_loop(server.port, [data], rate=rate, seconds=6)
    return {
        "p50_ms_at_70": round(outcome.ms(0.5), 2),
        "p99_ms_at_70": round(outcome.ms(0.99), 2),
        "p99_by_p50_at_70": round(outcome.ms(0.99) / outcome.ms(0.5), 2),
    }


def _summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, float]:
    summary: dict[str, float] = {}
    for name in rounds[0]:
        summary[f"{name}_per_s"] = round(statistics.median(r[name]["per_s"] for r in rounds), 1)
        summary[f"{name}_cpu_ms"] = round(statistics.median(r[name]["cpu_ms"] for r in rounds), 3)
    for name in rounds[0]:
        if name != "served":
            ratios = [r["served"]["per_s"] / r[name]["per_s"] for r in rounds]
            summary[f"served_by_{name}"] = round(statistics.median(ratios), 3)
            cpu = [r[name]["cpu_ms"] / r["served"]["cpu_ms"] for r in rounds]
            summary[f"cpu_{name}_by_served"] = round(statistics.median(cpu), 3)
    return summary


def _bundles(arguments: argparse.Namespace, root: Path) -> dict[str, Path]:
    if arguments.bundle:
        return {arguments.bundle.name: arguments.bundle}
    if arguments.model == "lite0":
        return {f"lite0 {kind}": folder for kind, folder in lite0_bundles(root).items()}
    from tests.serve.tiny import make_bundle

    return {"tiny": make_bundle(root)}


def _size(model: str) -> dict[str, int]:
    return {"height": 48, "width": 64} if model == "tiny" else {}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("lite0", "tiny"), default="lite0")
    parser.add_argument("--bundle", type=Path, help="another bundle instead")
    parser.add_argument("--photo", type=Path, help="another picture instead of the made one")
    parser.add_argument("--rivals", type=lambda text: text.split(","), default=[])
    parser.add_argument("--litserve", default=sys.executable, help="Python that has litserve")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--threads", type=int, help="of one replica")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
