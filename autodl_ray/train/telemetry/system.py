"""What the machine does meanwhile: processor, memory, object store, disk and GPU, each in about a tenth of a ms."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from autodl_ray.train.telemetry.gpu import GpuSampler

__all__ = ["SystemSampler", "folder_bytes"]

_MB = 1e6
_SLOW_S = 5.0  # between looks that cost more: Ray's object store, the size of a folder


class SystemSampler:
    """Looks at the machine when asked; what cannot be seen is left out, and nothing raises.

    Args:
        folder: Of the training, whose disk is watched.
        device: Of the training, as torch names it, e.g. ``cpu`` or ``cuda:0``.
    """

    def __init__(self, folder: Path, device: str) -> None:
        import psutil

        self._folder, self._device = folder, device
        self._process, self._psutil = psutil.Process(), psutil
        self._gpu: GpuSampler | None = None
        self._slow: dict[str, float] = {}
        self._looked = float("-inf")
        self._opened = False
        with contextlib.suppress(psutil.Error, OSError):
            self._process.cpu_percent()  # the first call only begins the measurement
            psutil.cpu_percent()

    def sample(self) -> dict[str, float]:
        """Return the facts by name.

        ``cpu_percent`` (of this process; 100 is one core), ``cpu_machine_percent`` (of all cores), ``rss_mb``,
        ``memory_free_mb``, ``disk_free_gb``, ``disk_used_mb`` (the training's folder), ``object_store_mb`` (where
        this process belongs to a Ray cluster), and with a GPU ``gpu_percent``, ``gpu_memory_mb``, ``gpu_power_w``,
        ``gpu_temperature_c``. MB and GB are powers of ten.
        """
        facts: dict[str, float] = {}
        with contextlib.suppress(self._psutil.Error, OSError):
            facts["cpu_percent"] = self._process.cpu_percent()
            facts["cpu_machine_percent"] = self._psutil.cpu_percent()
            facts["rss_mb"] = self._process.memory_info().rss / _MB
            facts["memory_free_mb"] = self._psutil.virtual_memory().available / _MB
        with contextlib.suppress(OSError):
            facts["disk_free_gb"] = shutil.disk_usage(self._folder).free / 1e9
        return {**facts, **self._seldom(), **self._of_gpu()}

    def close(self) -> None:
        """Let go of the GPU's library."""
        if self._gpu is not None:
            self._gpu.close()

    def _seldom(self) -> dict[str, float]:
        if time.monotonic() - self._looked >= _SLOW_S:
            self._slow = {"disk_used_mb": folder_bytes(self._folder) / _MB, **_object_store()}
            self._looked = time.monotonic()
        return self._slow

    def _of_gpu(self) -> dict[str, float]:
        if not self._opened:
            self._opened, self._gpu = True, GpuSampler.open(self._device)
        return {} if self._gpu is None else self._gpu.sample()


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below ``folder``; what vanishes meanwhile counts nothing."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    total += folder_bytes(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def _object_store() -> dict[str, float]:
    """Bytes in use in the object stores of the cluster; nothing is imported or started for it."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not getattr(ray, "is_initialized", lambda: False)():
        return {}
    try:
        total, free = ray.cluster_resources(), ray.available_resources()
        return {"object_store_mb": (total["object_store_memory"] - free["object_store_memory"]) / _MB}
    except Exception:  # Ray is just being stopped, or says nothing of it
        return {}
