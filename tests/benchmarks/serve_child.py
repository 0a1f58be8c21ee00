"""Servers that the benchmarks of serving start: `autodl serve` and its rivals, with the CPU time they have used."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Child", "autodl_serve", "rival"]

_RIVALS = Path(__file__).with_name("serve_rivals.py")


@dataclass(frozen=True)
class Child:
    """A server: its process and the port it answers on."""

    process: psutil.Process
    port: int

    def tree(self) -> list[psutil.Process]:
        """The process and all below it."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu_s(self) -> float:
        """User and system seconds of all of them so far."""
        total = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def replicas(self) -> list[psutil.Process]:
        """The replicas of Ray Serve."""
        found = []
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                if "ServeReplica" in " ".join(process.cmdline()):
                    found.append(process)
        return found


@contextlib.contextmanager
def autodl_serve(bundles: Sequence[str | Path], *options: str, port: int) -> Iterator[Child]:
    """Run ``autodl serve`` until the block ends, as a user would end it."""
    line = [sys.executable, "-c", "from autodl_ray.cli import main; main()", "serve", *map(str, bundles)]
    line += ["--port", str(port), "--json", *options]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            text = ""
            for part in process.stdout:
                text += part
                if part == "}\n":
                    break
            json.loads(text)
            yield Child(psutil.Process(process.pid), port)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def rival(
    kind: str, bundle: Path, *, port: int, python: str = sys.executable, threads: bool = False
) -> Iterator[Child]:
    """Run FastAPI or LitServe with the same model until the block ends."""
    environment = {**os.environ, "RIVAL_THREADS": "1" if threads else "0"}
    own = [str(_RIVALS.with_name("serve_litserve.py"))] if kind == "litserve" else [str(_RIVALS), kind]
    line = [python, *own, str(bundle), str(port)]
    with subprocess.Popen(line, env=environment, start_new_session=True, stdout=2) as process:
        try:
            _wait(port)
            yield Child(psutil.Process(process.pid), port)
        finally:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for member in family:
                with contextlib.suppress(psutil.Error):
                    member.kill()
            process.wait(10)


def _wait(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/nothing")
            connection.getresponse().read()
            connection.close()
            return
        time.sleep(0.2)
    raise TimeoutError(f"nobody answers on port {port}")
