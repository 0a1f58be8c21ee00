"""`autodl serve` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.serve.conftest import free_port
from tests.serve.tiny import make_bundle, picture

AUTODL = [sys.executable, "-c", "from autodl_ray.cli import main; main()", "serve"]


def refused(*arguments: str, key: str | None = None) -> str:
    """Run `autodl serve` and expect a refusal without Ray; returns standard error."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "AUTODL_API_KEY")}
    if key is not None:
        environment["AUTODL_API_KEY"] = key
    began = time.monotonic()
    done = subprocess.run([*AUTODL, *arguments], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 30
    return done.stderr


def test_a_port_in_use_is_refused_before_ray_starts(bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = refused(str(bundle), "--port", str(port))
    assert error.startswith(f"error: Port {port} of 127.0.0.1 is in use.")
    assert "next: take the next free one: --port " in error


def test_damaged_bundles_and_open_hosts_are_refused_before_ray_starts(bundle: Path, tmp_path: Path) -> None:
    damaged = make_bundle(tmp_path)
    (damaged / "model.onnx").write_bytes(b"half")
    assert "truncated or was changed" in refused(str(damaged))
    assert "nobody would be asked for a key" in refused(str(bundle), "--host", "0.0.0.0")
    assert "The API key is not usable." in refused(str(bundle), key="two words")
    assert "--num-replicas stands alone." in refused(str(bundle), "--num-replicas", "2", "--max-replicas", "3")
    assert "num_threads" in refused(str(bundle), "--num-threads", "0")
    assert "add --record DIR" in refused(str(bundle), "--record-share", "0.5")


@pytest.mark.ray
@pytest.mark.slow
def test_it_starts_answers_and_leaves_nothing_at_ctrl_c(bundle: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "key.txt"
    key_file.write_text("s3cret")
    port = free_port()
    command = [*AUTODL, str(bundle), "--port", str(port), "--num-replicas", "1", "--json"]
    command += ["--api-key-file", str(key_file), "--record", str(tmp_path / "kept"), "--record-share", "1"]
    with tempfile.TemporaryDirectory(prefix="adl") as temporary:  # short: Ray's sockets lie below it
        environment = {**os.environ, "TMPDIR": temporary}
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
            try:
                children = check_service(process, port)
                began = time.monotonic()
                process.send_signal(signal.SIGINT)
                rest, errors = process.communicate(timeout=30)
            finally:
                process.kill()
        assert (process.returncode, rest, errors) == (0, "", "")
        assert time.monotonic() - began < 20
        _, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []
        assert os.listdir(temporary) == []
    (kept,) = (tmp_path / "kept" / "colours" / "blue").iterdir()
    assert kept.read_bytes() == picture("blue")


def check_service(process: subprocess.Popen[str], port: int) -> list[psutil.Process]:
    """Wait until the service is ready, ask it, and return its processes."""
    document = read_json(process)
    assert (document["pid"], document["url"]) == (process.pid, f"http://127.0.0.1:{port}")
    assert [(m["name"], m["classes"]) for m in document["models"]] == [("colours", 3)]

    def ask(key: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{document['url']}/predict"
        return httpx.post(url, content=picture("blue"), headers=headers, trust_env=False)

    assert ask("s3cret").json()["predictions"][0]["class"] == "blue"
    assert ask("wrong").status_code == 401
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    return children


def read_json(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Read the one JSON document that is printed when the service is ready."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line == "}\n":
            document: dict[str, Any] = json.loads("".join(lines))
            return document
    assert process.stderr is not None
    pytest.fail(f"it ended before it was ready: {process.stderr.read()}")
