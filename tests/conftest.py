"""What tests share: the one Ray cluster of the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from autodl_ray.runtime.cluster import ClusterInfo, ensure_ray, stop_ray


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[ClusterInfo]:
    """A local Ray with 2 CPUs, started once a session, stopped with nothing left."""
    yield ensure_ray(num_cpus=2, num_gpus=0, log_to_driver=False, object_store_bytes=512 * 2**20)
    stop_ray()
