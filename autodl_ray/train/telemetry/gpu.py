"""Utilisation, memory, power and temperature of an NVIDIA GPU; nothing without one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["GpuSampler"]


@dataclass(frozen=True)
class GpuSampler:
    """One GPU.

    Attributes:
        readings: Name → a function that asks the driver.
        shutdown: Lets go of the driver's library.
    """

    readings: Mapping[str, Callable[[], float]]
    shutdown: Callable[[], object]

    @classmethod
    def open(cls, device: str) -> GpuSampler | None:
        """Find the GPU behind a name of torch (``cuda:1``); None without one, or where the driver says nothing."""
        if not device.startswith("cuda"):
            return None
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:
            return None
        try:
            return cls.of(pynvml, _handle(pynvml, device))
        except Exception:
            with contextlib.suppress(Exception):
                pynvml.nvmlShutdown()
            return None

    @classmethod
    def of(cls, nvml: Any, handle: Any) -> GpuSampler:
        """Make the sampler of a device that was opened."""
        return cls(
            {
                "gpu_percent": lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
                "gpu_memory_mb": lambda: float(nvml.nvmlDeviceGetMemoryInfo(handle).used) / 1e6,
                "gpu_power_w": lambda: float(nvml.nvmlDeviceGetPowerUsage(handle)) / 1e3,
                "gpu_temperature_c": lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            },
            nvml.nvmlShutdown,
        )

    def sample(self) -> dict[str, float]:
        """Return ``gpu_percent``, ``gpu_memory_mb``, ``gpu_power_w`` and ``gpu_temperature_c``, each if it is told."""
        facts = {}
        for name, read in self.readings.items():
            with contextlib.suppress(Exception):  # some boards do not measure power
                facts[name] = read()
        return facts

    def close(self) -> None:
        """Let go of the driver's library."""
        with contextlib.suppress(Exception):
            self.shutdown()


def _handle(nvml: Any, device: str) -> Any:
    """The device by its UUID: torch's numbers follow CUDA_VISIBLE_DEVICES, the driver's do not."""
    import torch

    uuid = str(torch.cuda.get_device_properties(torch.device(device)).uuid)
    return nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
