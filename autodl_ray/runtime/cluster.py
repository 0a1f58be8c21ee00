"""Starting Ray quietly for this process, or joining the cluster that is named to it, and leaving nothing behind."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from autodl_ray.errors import AutoDLError, ResourceError
from autodl_ray.runtime.ray_files import (
    ensure_token,
    ray_folder,
    remove_ray_folder,
    remove_stale_folders,
    tail_of_logs,
)

__all__ = ["ClusterInfo", "ensure_ray", "kill_ray_now", "start_ray_in_background", "stop_ray"]

_GiB = 2**30
# Read by Ray, Tune, Train and Data in this process and in every worker; the caller's own settings win.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
}
# On one machine every port of Ray listens on loopback only; 127.0.0.1 given as node address is replaced without it.
_LOCAL_ONLY = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    # A stream beside a slow training has one short task every few seconds: with Ray's 1 s, each of them would start
    # (and import) a new process.
    "RAY_idle_worker_killing_time_threshold_ms": "120000",
    # Blocks of a stream that were taken are freed at once, not once a second: 65 MiB of the object store instead of
    # 340 at 2,000 photos a second, and memory that is still in the caches (tests/benchmarks/stream_memory.py).
    "RAY_free_objects_period_milliseconds": "50",
    # Ray runs its workers at nice 15. One busy process beside a training then has a core nearly for itself, and the
    # other core waits for the slower half of each step: 25 instead of 1,510 images/s (small_resnet, 28 px, two cores).
    "RAY_worker_niceness": "0",
}


@dataclass(frozen=True)
class ClusterInfo:
    """The Ray that this process is connected to.

    Attributes:
        cpus: CPUs of the whole cluster.
        gpus: GPUs of the whole cluster.
        nodes: Machines in it.
        local: Whether it was started by this process (and ends with it).
        folder: Where a local Ray keeps logs and spilled objects.
        memory_mb: What Ray sets aside for processes, of all nodes: 70 % of what was free (of the container, where there
            is one) beside the object store; None: not known.
        gpu_memory_mb: Memory of one GPU; None without one, or where its driver says nothing.
    """

    cpus: float
    gpus: float
    nodes: int
    local: bool
    folder: Path | None
    memory_mb: float | None = None
    gpu_memory_mb: float | None = None


@dataclass
class _Started:
    """The one Ray of this process: Ray itself allows one, so this record is per process too."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    done: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    keeper: threading.Thread | None = None
    folder: Path | None = None
    guard: subprocess.Popen[bytes] | None = None
    info: ClusterInfo | None = None
    error: BaseException | None = None


_ray = _Started()


def ensure_ray(
    store: Path | None = None,
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    dashboard: bool = False,
    log_to_driver: bool = True,
    object_store_bytes: int | None = None,
) -> ClusterInfo:
    """Start Ray in this process, or join the cluster of ``RAY_ADDRESS`` (set in every Ray job); once.

    A second call, from any thread, waits for the first and returns the same answer. A local Ray listens on
    loopback, asks for a token, reports no usage, and dies with this process, however that ends.

    Args:
        store: Folder on whose volume Ray's own files lie (in ``store/.ray``); None: the system's temporary folder.
        num_cpus: CPUs of a local Ray; None: those of the machine.
        num_gpus: GPUs of a local Ray; None: those of the machine.
        dashboard: Whether to serve Ray's dashboard.
        log_to_driver: Whether the workers' output is copied to this process's output.
        object_store_bytes: Size of the object store; None: 30 % of the memory, at most 4 GiB.

    Returns:
        What there is to share out.

    Raises:
        ResourceError: Ray did not start or the cluster could not be joined; with the last lines of its log.
    """
    start_ray_in_background(
        store,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        dashboard=dashboard,
        log_to_driver=log_to_driver,
        object_store_bytes=object_store_bytes,
    )
    _ray.done.wait()
    if _ray.error is not None:
        error = _ray.error
        _forget()
        raise error
    assert _ray.info is not None
    return _ray.info


def start_ray_in_background(
    store: Path | None = None,
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    dashboard: bool = False,
    log_to_driver: bool = True,
    object_store_bytes: int | None = None,
) -> None:
    """Begin what :func:`ensure_ray` waits for, and return at once; a mistake is raised there."""
    with _ray.lock:
        if _ray.keeper is not None:
            return
        options: dict[str, Any] = {
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "include_dashboard": dashboard,
            "log_to_driver": log_to_driver,
            "object_store_memory": object_store_bytes or _object_store_bytes(),
        }
        # Linux kills Ray's processes when the *thread* that started them ends: this one stays until stop_ray().
        _ray.keeper = threading.Thread(target=_keep, args=(store, options), name="ray-keeper", daemon=True)
        _ray.keeper.start()


def stop_ray(timeout_s: float = 10.0) -> None:
    """Leave the cluster; end a local Ray with all its processes and delete its files."""
    if _ray.keeper is None:
        return
    _ray.done.wait()
    import ray

    processes = _own_processes()
    # Ray ends its processes one after the other, and gives each of these helpers up to a second to say goodbye.
    _kill([p for p in processes if p.ppid() == os.getpid() and p.name() not in ("raylet", "gcs_server")])
    with contextlib.suppress(Exception):  # what does not end by itself is killed below
        ray.shutdown()
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    _kill(alive)
    _forget()


def kill_ray_now() -> None:
    """Kill every process of a local Ray at once, without asking, and delete its files.

    The process cannot use Ray afterwards and should end with ``os._exit``: Ray's own exit handler would wait
    seconds for processes that are gone.
    """
    _kill(_own_processes())
    if _ray.guard is not None:
        _ray.guard.kill()
        _ray.guard.wait()
    if _ray.folder is not None:
        remove_ray_folder(_ray.folder)


def _keep(store: Path | None, options: dict[str, Any]) -> None:
    try:
        _ray.info = _join() if os.environ.get("RAY_ADDRESS") else _start(store, options)
    except Exception as error:
        _ray.error = error if isinstance(error, AutoDLError) else _explained(error)
    finally:
        _ray.done.set()
    _ray.release.wait()


def _start(store: Path | None, options: dict[str, Any]) -> ClusterInfo:
    remove_stale_folders(store)
    _ray.folder = folder = ray_folder(store)
    for name, value in {**_QUIET, **_LOCAL_ONLY}.items():
        os.environ.setdefault(name, value)
    _tell_imported_ray()
    ensure_token(folder)
    with contextlib.nullcontext() if options["include_dashboard"] else _without_dashboard():
        _connect(address="local", _temp_dir=str(folder), _node_ip_address="127.0.0.1", **options)
    _ray.guard = _start_guard(_own_processes())
    return _info(local=True, folder=folder)


@contextlib.contextmanager
def _without_dashboard() -> Iterator[None]:
    """Start Ray as where only its minimal package is installed: nobody asked for what needs the rest.

    Else this process imports a web framework that it does not use (1 s of CPU time), and so do two of Ray's own.
    """
    name = "ray.dashboard.optional_deps"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # what makes an import fail, says the documentation of Python
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before


def _tell_imported_ray() -> None:
    """Hand the settings on to a Ray that other code has imported already: it read them at its import."""
    if "ray" in sys.modules:
        from ray._private import ray_constants
        from ray._raylet import Config  # type: ignore[attr-defined]

        ray_constants.ENABLE_RAY_CLUSTER = os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "1"
        Config.initialize("")


def _start_guard(processes: list[psutil.Process]) -> subprocess.Popen[bytes]:
    """Start a shell that kills ``processes`` when this process is gone, which closes the shell's input.

    The kernel ends Ray's servers with the driver, but the raylet's two agents notice only after up to a minute.
    """
    pids = " ".join(str(p.pid) for p in processes)
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        ["/bin/sh", "-c", f"read _; kill -9 {pids}"],
        stdin=subprocess.PIPE,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
    )


def _join() -> ClusterInfo:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    _connect()
    return _info(local=False, folder=None)


def _connect(**options: Any) -> None:
    import ray

    if ray.is_initialized():
        raise ResourceError(
            "Ray was already started in this process by other code.",
            hint="call ensure_ray() first, or ray.shutdown() before it",
        )
    logging.getLogger("ray").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(logging_level=logging.ERROR, **options)


def _info(*, local: bool, folder: Path | None) -> ClusterInfo:
    import ray

    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]
    gpus, memory = total.get("GPU", 0.0), total.get("memory", 0.0)
    return ClusterInfo(
        total.get("CPU", 0.0),
        gpus,
        nodes,
        local,
        folder,
        memory / 1e6 if memory else None,
        _gpu_memory_mb() if gpus and local else None,
    )


def _gpu_memory_mb() -> float | None:
    """Memory of the smallest GPU of this machine."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        found = min((float(pynvml.nvmlDeviceGetMemoryInfo(handle).total) / 1e6 for handle in handles), default=None)
        pynvml.nvmlShutdown()
    except Exception:  # no library, no driver, no right to ask: GPUs are then not shared
        return None
    return found


def _explained(error: Exception) -> ResourceError:
    address = os.environ.get("RAY_ADDRESS")
    if address:
        found = ResourceError(
            "The Ray cluster could not be joined.",
            seen=f"RAY_ADDRESS={address}: {_first_line(error)}",
            hint="unset RAY_ADDRESS to start a local Ray, or see that the cluster runs and RAY_AUTH_TOKEN is its token",
        )
    else:
        tail = tail_of_logs(_ray.folder) if _ray.folder else ""
        found = ResourceError(
            "Ray did not start on this machine.",
            seen=_first_line(error) + (f"\n{tail}" if tail else ""),
            hint="free memory, disk space or /dev/shm, or lower the number of CPUs, and run the same line again",
        )
    found.__cause__ = error
    return found


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def _object_store_bytes() -> int:
    return int(min(4 * _GiB, 0.3 * psutil.virtual_memory().total))


def _own_processes() -> list[psutil.Process]:
    """The processes of this driver's local Ray: children that name its folder, and everything below them."""
    if _ray.folder is None:
        return []
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if str(_ray.folder) in " ".join(child.cmdline()):
                found += [child, *child.children(recursive=True)]
    return found


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=3.0)


def _forget() -> None:
    """Let the keeper end, delete Ray's files, and be ready for another start."""
    if _ray.keeper is not None:
        _ray.release.set()
        _ray.keeper.join(timeout=5.0)
    if _ray.guard is not None:
        _ray.guard.kill()
        _ray.guard.communicate()
    if _ray.folder is not None:
        deadline = time.monotonic() + 2.0
        while _own_processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        remove_ray_folder(_ray.folder)
    _ray.done, _ray.release = threading.Event(), threading.Event()
    _ray.keeper = _ray.folder = _ray.guard = _ray.info = _ray.error = None
