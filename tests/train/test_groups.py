"""Two workers (gloo, no Ray) give what one gives, while stages are unfrozen and gradients accumulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from autodl_ray.train.checkpoint import load_checkpoint
from autodl_ray.train.loop import fit
from autodl_ray.train.peers import Group, Peers
from autodl_ray.train.result import FitResult
from tests.train.sources import coloured, config_for

OWN = "tests.train.own_parts"
KINDS: dict[str, dict[str, Any]] = {
    "gradual": {"freeze": "gradual", "unfreeze_share": 0.6, "layer_decay": 0.7},
    "micro": {"micro_batch_size": 5, "loss": "focal", "class_weights": (0.5, 1.0, 1.5)},
    "memory": {"model": f"{OWN}:greedy_torch", "epochs": 1},
}


def run(folder: Path, kind: str, peers: Peers | None = None) -> FitResult:
    source = coloured(train=330)
    values = {"model": f"{OWN}:convolutions", "epochs": 2, "dropout": 0.0, "optimizer": "sgd", **KINDS[kind]}
    return fit(
        config_for(source, **values),
        source,
        folder=folder / kind,
        report=lambda row: None,
        should_stop=lambda: False,
        num_threads=1,
        peers=peers,
    )


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2, init_method=f"file://{folder}/meeting")
    for kind in KINDS:
        result = run(Path(folder), kind, Group(torch.device("cpu")))
        (Path(folder) / f"{kind}-{rank}").write_text("\n".join(result.notes))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_give_what_one_gives(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    mp.spawn(work, (str(tmp_path / "two"),), nprocs=2)
    for kind in ("gradual", "micro"):
        run(tmp_path / "one", kind)
        one, two = (load_checkpoint(tmp_path / place / kind)[0] for place in ("one", "two"))
        assert one is not None
        assert two is not None
        assert max(float((one["model"][k] - two["model"][k]).abs().max()) for k in one["model"]) < 1e-6, kind
    # Each worker has 16 of the 32 pictures, which are too many: both agree before the first step.
    for rank in (0, 1):
        note = (tmp_path / "two" / f"memory-{rank}").read_text()
        assert note.startswith(
            "memory ran out with 16 pictures at a time; gradients are accumulated over micro-batches of 8"
        )
