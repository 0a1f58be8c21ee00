"""A disk limit that holds: measured as du does, freed in order, and ended with nothing lost."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autodl_ray.artifacts import Store
from autodl_ray.errors import RunInterrupted, StoreError
from autodl_ray.runtime import Budget, Context, SilentProgress, StopFlag
from autodl_ray.runtime.disk import DiskGuard, disk_guard, measure
from autodl_ray.runtime.ray_files import home_of_ray, ray_folder, remove_ray_folder

MiB = 2**20


def context(folder: Path, limit: int | None) -> Context:
    stop = StopFlag(folder / "stop")
    return Context(Store(folder / "store"), "run", 0, Budget(60), SilentProgress(), stop, disk_limit=limit)


def write(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


def du(*folders: Path) -> int:
    """Bytes of the files, by the command of the system; folders themselves left out."""
    files = [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]
    if not files:
        return 0
    said = subprocess.run(["du", "-c", "-B1", *files], capture_output=True, text=True, check=False).stdout
    return int(said.splitlines()[-1].split()[0])


def test_measures_as_du_does(tmp_path: Path) -> None:
    write(tmp_path / "a" / "one", 300_000)
    write(tmp_path / "a" / "b" / "last.pt", 2 * MiB)
    os.link(tmp_path / "a" / "one", tmp_path / "a" / "again")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "b")
    usage = measure([tmp_path / "a", tmp_path / "absent"])
    assert abs(usage.total - du(tmp_path / "a")) <= 4096  # the link itself
    assert usage.parts[0] == (tmp_path / "a" / "b", 2 * MiB)
    assert usage.checkpoint == 2 * MiB
    assert f"{tmp_path}/a/b 2.0 MiB" in usage.largest()


def test_no_limit_no_guard(tmp_path: Path) -> None:
    with disk_guard(context(tmp_path, None)) as guard:
        assert guard is None


def test_frees_in_order_and_only_what_is_needed(tmp_path: Path) -> None:
    files = [write(tmp_path / "run" / name, 3 * MiB) for name in ("logs", "fallbacks", "paused")]
    said: list[str] = []
    asked: list[bool] = []
    guard = DiskGuard(
        7 * MiB,
        (tmp_path / "run",),
        tuple((path.name, path.unlink) for path in files),
        lambda: asked.append(True),
        said.append,
    )
    guard.look()
    assert [path.exists() for path in files] == [False, True, True]
    assert said == ["the disk limit is near: 3.0 MiB of logs deleted"]
    guard.check()
    write(tmp_path / "run" / "more", 6 * MiB)
    guard.look()
    assert [path.exists() for path in files] == [False, False, False]
    assert asked == [True]
    with pytest.raises(StoreError, match=r"disk limit is reached[\s\S]*6.0 MiB of 7.0 MiB[\s\S]*--disk-limit"):
        guard.check()


def test_fallbacks_go_only_where_the_last_one_is_there(tmp_path: Path) -> None:
    run = context(tmp_path, 12 * MiB)
    whole, torn = run.folder / "work" / "t0", run.folder / "work" / "t1"
    write(whole / "last.pt", 2 * MiB)
    for folder in (whole, torn):
        write(folder / "last.prev.pt", 2 * MiB)
    write(run.folder / "other", 3 * MiB)
    with disk_guard(run):
        assert not (whole / "last.prev.pt").exists()
        assert (whole / "last.pt").exists()
        assert (torn / "last.prev.pt").exists()


def test_rays_files_count_and_old_ones_go_first(tmp_path: Path) -> None:
    run = context(tmp_path, 10 * MiB)
    home = home_of_ray(Path(run.store.root))
    gone = subprocess.Popen(["true"])
    gone.wait()
    made = ray_folder(Path(run.store.root))
    assert made.resolve() == home
    old = write(home / "session_2026-01-01" / "logs" / "raylet.out", 2 * MiB)
    time.sleep(0.02)
    logs = home / "session_2026-01-02" / "logs"
    ended = write(logs / f"worker-aa-ffffffff-{gone.pid}.err", 2 * MiB)
    rotated = write(logs / "raylet.out.1", 2 * MiB)
    living = write(logs / f"python-core-worker-aa_{os.getpid()}.log", 2 * MiB)
    write(run.folder / "result", 3 * MiB)
    said: list[str] = []
    with disk_guard(run, say=said.append):
        assert [path.exists() for path in (old, ended, rotated, living)] == [False, False, False, True]
    assert "6.0 MiB of Ray's logs of processes that have ended deleted" in said[0]
    remove_ray_folder(made)


def test_limit_below_what_is_there_is_refused_at_the_start(tmp_path: Path) -> None:
    run = context(tmp_path, 2 * MiB)
    kept = write(run.folder / "bundle" / "model.onnx", 3 * MiB)
    with pytest.raises(StoreError, match="disk limit is reached"), disk_guard(run):
        pytest.fail("must not begin")
    assert kept.exists()
    assert not run.stop.is_set()


def test_never_above_the_limit_while_others_write(tmp_path: Path) -> None:
    limit = 24 * MiB
    run = context(tmp_path, limit)
    written: list[Path] = []
    sampled: list[int] = []
    over = threading.Event()

    def train() -> None:
        """Write as a training does: a checkpoint in place of the last but one, and something that stays."""
        trial = run.folder / "work" / "t0"
        step = 0
        while not run.stop.is_set():
            draft = write(trial / ".last.pt.tmp", MiB)
            if (trial / "last.pt").exists():
                (trial / "last.pt").replace(trial / "last.prev.pt")
            draft.replace(trial / "last.pt")
            written.append(write(trial / f"weights-{step}", MiB // 4))
            step += 1
            time.sleep(0.02)
        write(trial / ".last.pt.tmp", MiB).replace(trial / "last.pt")  # the last one, of the stop

    def sample() -> None:
        while not over.wait(0.02):
            sampled.append(measure([run.folder]).total)

    def guarded(work: Callable[[], None]) -> None:
        with disk_guard(run) as guard:
            assert guard is not None
            watch = threading.Thread(target=guard.run, args=(0.05,))  # quicker than the usual two seconds
            watch.start()
            work()
            guard.end()
            watch.join()
            raise RunInterrupted("stopped")

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        with pytest.raises(StoreError, match="all that it did is kept"):
            guarded(train)
    finally:
        over.set()
        sampler.join()
    assert limit / 5 < max(sampled) <= limit  # the more is written between two looks, the earlier it ends
    assert all(path.exists() for path in written)
    assert (run.folder / "work" / "t0" / "last.pt").exists()


def test_measuring_is_cheap(tmp_path: Path) -> None:
    for folder in range(20):
        for file in range(50):
            write(tmp_path / str(folder) / str(file), 10)
    began = time.perf_counter()
    measure([tmp_path])
    assert time.perf_counter() - began < 0.5  # 10 ms on an idle machine
