"""A training on two nodes of one CPU, one of which is taken away; writes down what came of it. A program for a test."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.train.ddp_sources import troubled
from tests.train.sources import coloured, config_for


def main(folder: Path, temporary: str) -> None:
    """Train three epochs; after the first the second node is gone."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="1")
    import ray
    from ray.cluster_utils import Cluster

    from autodl_ray.train.launch import launch

    quick = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
    small = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    head = {**small, "temp_dir": temporary, "_system_config": quick}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    other = cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=80 * 2**20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    cluster.wait_for_nodes()
    rows: list[dict[str, Any]] = []

    def report(row: dict[str, Any]) -> None:
        rows.append(row)
        if len(rows) == 1:
            cluster.remove_node(other, allow_graceful=False)

    source = troubled(coloured(train=71, val=31), folder / "marks", step_s=0.3)
    began = time.monotonic()
    result = launch(
        config_for(source, model="pixels", epochs=3, dropout=0.0),
        source,
        folder=folder / "run",
        num_workers=2,
        resources_per_worker={"CPU": 0.9},
        report=report,
        should_stop=lambda: False,
        patience_s=3.0,
    )
    seconds = time.monotonic() - began
    said = {"rows": rows, "notes": result.notes, "status": result.status, "seconds": seconds}
    (folder / "said.json").write_text(json.dumps(said))
    with contextlib.suppress(Exception):
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
