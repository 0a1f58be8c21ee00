"""Mixing in a group of workers: each mixes its own slice, with the share that all have in a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autodl_ray.train.launch import launch
from tests.train.sources import coloured, config_for


@pytest.mark.ray
def test_two_workers_train_on_mixed_slices(ray_cluster: object, tmp_path: Path) -> None:
    source = coloured(train=71, val=31)
    rows: list[dict[str, Any]] = []
    result = launch(
        config_for(source, epochs=2, batch_size=16, mixup=0.2, cutmix=1.0),
        source,  # type: ignore[arg-type]
        folder=tmp_path,
        num_workers=2,
        resources_per_worker={"CPU": 0.5},
        report=rows.append,
        should_stop=lambda: False,
    )
    assert result.epochs == len(rows) == 2
    assert rows[-1]["accuracy"] > 0.8
    assert rows[-1]["train_loss"] > rows[-1]["loss"]
