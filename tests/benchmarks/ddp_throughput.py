"""Fine-tuning with two DDP workers against one, on the same cores: images a second of steady steps.

Run:  python -m tests.benchmarks.ddp_throughput [--steps 12] [--batch 32] [--size 224] [--rounds 3] [--json FILE]

Both fine-tune efficientnet_lite0 from its packaged weights with ``train.launch``: one worker in this process with two
threads (slices of the batch, as a training has the machine for itself), and two processes with one thread each whose
gradients are averaged over gloo. The global batch is the same, the pictures are decoded beforehand, the first epoch of
either warms up and is not counted. The two take turns, so that a busy machine hurts both alike; the medians of the
rounds are compared. Beside them, for a machine that others use: images a second of processor time, all workers added
up, which does not see how long they wait for each other. Goal: with two workers at least 0.9 of the images a second
with one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from autodl_ray.images import Preprocess
from autodl_ray.models.zoo import ZOO
from autodl_ray.runtime.cluster import ensure_ray, stop_ray
from autodl_ray.seeding import rng_for
from autodl_ray.spec.sections import TrainSpec
from autodl_ray.train.config import FitConfig, resolve
from autodl_ray.train.launch import launch

CLASSES = 3
EPOCHS = 2


@dataclass(frozen=True)
class Batch:
    """Decoded pictures."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Decoded:
    """A source that costs nothing: the same pictures for every step; each worker gets its slice."""

    steps: int
    batch: int
    size: int
    marks: Path

    @property
    def num_train(self) -> int:
        return self.steps * self.batch

    @property
    def num_val(self) -> int:
        return 2

    def _batch(self, rows: slice) -> Batch:
        rng = rng_for(0, "decoded")
        images = rng.integers(0, 256, (self.batch, self.size, self.size, 3), dtype=np.uint8)
        return Batch(images[rows], np.arange(self.batch, dtype=np.int64)[rows] % CLASSES)

    def train_epochs(
        self, *, start: int, stop: int, rank: int = 0, world_size: int = 1, **options: Any
    ) -> Iterator[Iterator[Batch]]:
        """Yield the epochs."""
        share = self.batch // world_size
        mine = self._batch(slice(rank * share, (rank + 1) * share))
        for epoch in range(start, stop):
            yield self._timed(mine, epoch, rank)

    def _timed(self, batch: Batch, epoch: int, rank: int) -> Iterator[Batch]:
        """Yield an epoch; write down the processor time that this process spent in it."""
        began = time.process_time()
        for _ in range(self.steps):
            yield batch
        (self.marks / f"{epoch}-{rank}").write_text(str(time.process_time() - began))

    def val_batches(self, *, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield one picture a worker."""
        yield self._batch(slice(rank, rank + 2 // world_size))


def config_of(source: Decoded, precision: str) -> FitConfig:
    """Return the recipe of the zoo."""
    entry = ZOO["efficientnet_lite0"]
    train = TrainSpec.model_validate({"batch_size": source.batch, "precision": precision, "checkpoint_every_s": 0})
    return resolve(
        train,
        entry,
        preprocess=Preprocess(source.size, mean=(0.5,) * 3, std=(0.5,) * 3),
        num_classes=CLASSES,
        weights="packaged",
        epochs=EPOCHS,
        seed=0,
    )


def speed(given: argparse.Namespace, workers: int) -> tuple[float, float]:
    """Return the images of the last epoch by second, and by second of processor time."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        source = Decoded(given.steps, given.batch, given.size, Path(folder))
        result = launch(
            config_of(source, given.precision),
            source,
            folder=Path(folder) / "run",
            num_workers=workers,
            resources_per_worker={"CPU": 0.9},
            report=lambda row: None,
            should_stop=lambda: False,
        )
        cpu_s = sum(float((Path(folder) / f"{EPOCHS - 1}-{rank}").read_text()) for rank in range(workers))
    return float(result.history[-1]["images_per_s"]), source.num_train / cpu_s


def main() -> None:
    """Print both speeds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="bf16", choices=("32", "bf16"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    ensure_ray(num_cpus=2, num_gpus=0, log_to_driver=False, object_store_bytes=256 * 2**20)
    rows: list[dict[str, float]] = []
    for _ in range(given.rounds):
        (one, one_cpu), (two, two_cpu) = speed(given, 1), speed(given, 2)
        rows.append({"one": one, "two": two, "one_cpu": one_cpu, "two_cpu": two_cpu})
        print(
            f"images/s: one worker {one:6.1f}, two {two:6.1f}; a CPU second: {one_cpu:6.1f}, {two_cpu:6.1f}", flush=True
        )
    stop_ray()
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    ratio, cpu_ratio = middle["two"] / middle["one"], middle["two_cpu"] / middle["one_cpu"]
    print(f"ratio {ratio:.2f} (goal 0.9), of processor time {cpu_ratio:.2f}; {given.precision}, batch {given.batch}")
    if given.json:
        given.json.write_text(json.dumps({"rounds": rows, "ratio": ratio, "cpu_ratio": cpu_ratio}) + "\n")


if __name__ == "__main__":
    main()
