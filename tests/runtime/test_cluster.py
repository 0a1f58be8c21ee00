"""A cluster that starts quietly, once, and leaves nothing."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from autodl_ray.errors import ResourceError
from autodl_ray.runtime.cluster import ClusterInfo, ensure_ray
from autodl_ray.runtime.ray_files import ensure_token, ray_folder, remove_ray_folder, remove_stale_folders

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


@pytest.mark.ray
def test_it_listens_on_loopback_only_and_a_second_call_returns_the_first_answer(ray_cluster: ClusterInfo) -> None:
    import ray

    assert ensure_ray(num_cpus=64) is ray_cluster
    assert (ray_cluster.cpus, ray_cluster.gpus, ray_cluster.nodes, ray_cluster.local) == (2.0, 0.0, 1, True)
    assert [n["NodeManagerAddress"] for n in ray.nodes()] == ["127.0.0.1"]
    ours = {p.pid for p in psutil.Process().children(recursive=True)}
    listening = [c for c in psutil.net_connections("tcp") if c.pid in ours and c.status == psutil.CONN_LISTEN]
    assert listening
    assert [c.laddr for c in listening if c.laddr.ip not in LOOPBACK] == []


@pytest.mark.ray
def test_the_token_is_required_and_private(ray_cluster: ClusterInfo) -> None:
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert stat.S_IMODE((Path.home() / ".ray" / "auth_token").stat().st_mode) == 0o600


DRIVER = """
    import os, sys, time
    from pathlib import Path
    import psutil
    from autodl_ray.runtime.cluster import ensure_ray, kill_ray_now, start_ray_in_background, stop_ray

    start_ray_in_background(Path(sys.argv[1]), num_cpus=1, object_store_bytes=100 * 2**20)
    info = ensure_ray()
    import ray

    assert ray.get(ray.remote(lambda: 41 + 1).remote()) == 42
    print(*(p.pid for p in psutil.Process().children(recursive=True)), flush=True)
    if sys.argv[2] == "stop":
        stop_ray()
    elif sys.argv[2] == "kill":
        kill_ray_now()
    else:
        time.sleep(60)
    os._exit(5 if psutil.Process().children(recursive=True) else 0)
"""


def _lives(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped by its new parent does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.ray
@pytest.mark.parametrize("end", ["stop", "kill", "sigkill"])
def test_no_process_and_no_file_is_left_however_the_driver_ends(tmp_path: Path, end: str) -> None:
    store = tmp_path / ("a-store-in-a-folder-with-a-long-name-" * 3)
    store.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER), str(store), end],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout is not None
        assert driver.stderr is not None
        pids = [int(p) for p in driver.stdout.readline().split()]
        assert len(pids) >= 3, driver.stderr.read()
        if end == "sigkill":
            assert list(store.glob(".ray/*/session_*"))
            driver.send_signal(signal.SIGKILL)
        _, noise = driver.communicate(timeout=30)
        assert noise == ""
        assert driver.returncode == {"stop": 0, "kill": 0, "sigkill": -9}[end]
    deadline = time.monotonic() + 5
    while any(_lives(p) for p in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [p for p in pids if _lives(p)] == []
    remove_stale_folders(store)  # what the next start does
    assert list(store.rglob("session_*")) == []


@pytest.mark.ray
def test_a_cluster_that_cannot_be_joined_is_named() -> None:
    code = "from autodl_ray.runtime.cluster import ensure_ray\nensure_ray()"
    env = {**os.environ, "RAY_ADDRESS": "no-such-place"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "The Ray cluster could not be joined." in done.stderr
    assert "RAY_ADDRESS=no-such-place" in done.stderr
    assert "unset RAY_ADDRESS" in done.stderr


def test_a_long_path_becomes_a_short_link_into_the_store(tmp_path: Path) -> None:
    base = tmp_path / ("x" * 80)
    base.mkdir()
    path = ray_folder(base)
    try:
        assert len(str(path)) < 43
        (path / "session_1").mkdir()
        assert [p.name for p in base.glob(".ray/*/*")] == ["session_1"]
        assert stat.S_IMODE(path.resolve().stat().st_mode) == 0o700
    finally:
        remove_ray_folder(path)
    assert not path.exists()
    assert list(base.iterdir()) == []


def test_folders_of_killed_drivers_are_deleted_and_of_living_ones_kept(tmp_path: Path) -> None:
    mine = ray_folder(tmp_path).resolve()
    dead = mine.with_name(mine.name.replace(str(os.getpid()), "999999999"))
    other_host = mine.with_name("999999999-ffffff")
    for folder in (dead, other_host):
        folder.mkdir()
    remove_stale_folders(tmp_path)
    assert sorted(tmp_path.glob(".ray/*")) == sorted([mine, other_host])
    remove_ray_folder(mine)


def test_a_wide_open_token_is_narrowed_and_a_missing_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    ensure_token(tmp_path)
    token = tmp_path / ".ray" / "auth_token"
    first = token.read_text()
    assert len(first) == 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    token.chmod(0o644)
    ensure_token(tmp_path)
    assert token.read_text() == first
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


def test_the_error_survives_pickling() -> None:
    import pickle

    error = ResourceError("Ray did not start on this machine.", seen="OSError: full", hint="free memory")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
