"""A Ray job runs the same spec on a cluster that is there already: a real head node, a real submission."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from autodl_ray.data.samples import write_digits
from autodl_ray.spec import load_spec

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).parent / "ray")


def test_the_shipped_specs_are_valid() -> None:
    assert load_spec(ROOT / "jobs" / "photos.yaml").name == "quickstart"


@pytest.fixture
def head() -> Iterator[tuple[str, dict[str, str]]]:
    """A Ray head node with two CPUs and token authentication, as `ray start` makes it."""
    # A short path: the sockets below it have names of up to 107 bytes.
    with tempfile.TemporaryDirectory(prefix="aj", ignore_cleanup_errors=True) as folder:
        environment = {
            **os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }  # fmt: skip
        gcs, dashboard, client, agent = _free_ports(4)
        started = subprocess.run(
            [RAY, "start", "--head", "--num-cpus=2", "--node-ip-address=127.0.0.1", f"--port={gcs}",
             f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
             f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}", "--object-store-memory=300000000"],
            env=environment, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        try:
            assert started.returncode == 0, started.stderr
            yield f"http://127.0.0.1:{dashboard}", environment
        finally:
            _end_all(folder)


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_joins_the_cluster_and_leaves_a_bundle(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, environment = head
    digits = write_digits(tmp_path / "digits", n=200)
    store = tmp_path / "store"
    settings = ("tune.num_samples=2", "tune.epochs=1", "train.epochs=2", "export.int8=off")
    done = subprocess.run(
        [RAY, "job", "submit", "--address", address, "--working-dir", str(ROOT / "jobs"), "--", sys.executable,
         "run.py", str(digits), "--store", str(store), "--name", "job", "--budget", "2m", "--json",
         *[part for s in settings for part in ("--set", s)]],
        env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status": "done"' in done.stdout
    info = json.loads((store / "job" / "bundle" / "bundle.json").read_text())
    assert info["test_scores"]["num_images"] > 0
    assert not list((store / ".ray").glob("*")), "the job joins a Ray, it starts none"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _end_all(folder: str) -> None:
    """End the head node's processes: the ones that name its folder, and everything below them."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline"]):
        if folder in " ".join(process.info["cmdline"] or ()):
            with contextlib.suppress(psutil.Error):
                found += [process, *process.children(recursive=True)]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(found, timeout=10)
