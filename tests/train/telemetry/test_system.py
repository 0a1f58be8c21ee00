"""What is seen of the machine: of this process, of Ray's object store, and of a GPU where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autodl_ray.runtime.cluster import ClusterInfo
from autodl_ray.train.telemetry import WeightWatch, gradient_norm
from autodl_ray.train.telemetry.gpu import GpuSampler
from autodl_ray.train.telemetry.system import SystemSampler, folder_bytes


def test_this_process_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(3_000_000))
    sampler = SystemSampler(tmp_path, "cpu")
    block = np.ones(40_000_000, np.uint8)  # 40 MB
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    facts = sampler.sample()
    sampler.close()
    assert facts["disk_used_mb"] == pytest.approx(3.0)
    assert facts["rss_mb"] > len(block) / 1e6
    assert facts["cpu_percent"] > 5
    assert 0 < facts["disk_free_gb"] < 1e6
    assert facts["memory_free_mb"] > 0
    assert not [name for name in facts if name.startswith("gpu")], "none without a GPU"
    assert folder_bytes(tmp_path / "nowhere") == 0


def test_a_look_takes_next_to_no_time(tmp_path: Path) -> None:
    sampler = SystemSampler(tmp_path, "cpu")
    sampler.sample()
    started = time.process_time()
    for _ in range(20):
        sampler.sample()
    assert (time.process_time() - started) / 20 < 0.01, "1 % of a core at one look a second"


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    facts = SystemSampler(tmp_path / "gone", "cpu").sample()
    assert "disk_free_gb" not in facts
    assert facts["rss_mb"] > 0


def test_without_a_driver_there_is_no_gpu() -> None:
    assert GpuSampler.open("cpu") is None
    if not torch.cuda.is_available():
        assert GpuSampler.open("cuda:0") is None


def test_the_readings_of_a_gpu_and_one_that_is_refused() -> None:
    def refused(handle: object) -> int:
        raise RuntimeError("Not Supported")

    closed: list[bool] = []
    nvml = SimpleNamespace(
        NVML_TEMPERATURE_GPU=0,
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=87),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=2_500_000_000),
        nvmlDeviceGetPowerUsage=refused,
        nvmlDeviceGetTemperature=lambda handle, kind: 61,
        nvmlShutdown=lambda: closed.append(True),
    )
    sampler = GpuSampler.of(nvml, object())
    assert sampler.sample() == {"gpu_percent": 87.0, "gpu_memory_mb": 2500.0, "gpu_temperature_c": 61.0}
    sampler.close()
    assert closed == [True]


@pytest.mark.ray
def test_the_object_store_is_seen(ray_cluster: ClusterInfo, tmp_path: Path) -> None:
    import ray

    before = SystemSampler(tmp_path, "cpu").sample()["object_store_mb"]
    block = ray.put(np.zeros(30_000_000, np.uint8))
    grown = _until(lambda: SystemSampler(tmp_path, "cpu").sample()["object_store_mb"] - before > 29)
    del block
    assert grown


def test_norms_are_those_of_all_parameters_together() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))
    model(torch.ones(2, 5)).square().sum().backward()
    parameters = list(model.parameters())
    wanted = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm()
    assert gradient_norm(parameters) == pytest.approx(float(wanted))
    before = torch.cat([p.detach().flatten() for p in parameters])
    watch = WeightWatch(parameters)
    torch.optim.SGD(parameters, lr=0.1).step()
    after = torch.cat([p.detach().flatten() for p in parameters])
    norm, ratio = watch.after()
    assert norm == pytest.approx(float(after.norm()))
    assert ratio == pytest.approx(float((after - before).norm() / after.norm()))
    assert (gradient_norm([]), WeightWatch([]).after()) == (0.0, (0.0, 0.0))


def _until(found: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while not (what := found()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return what
