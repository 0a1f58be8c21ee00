"""A data set of five times the object store goes through the stream: memory, spilled bytes and rows of each epoch.

Run from the repository's root: ``python -m tests.benchmarks.stream_memory [EPOCHS]``. Ray gets an object store of
512 MB; the pictures that an epoch streams (uint8, 224 × 224) are 5 × that. Their bytes are parts of one file.
"""

from __future__ import annotations

import io
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from autodl_ray.artifacts import Ranges, TrainSamples, ValSamples
from autodl_ray.augment import AugmentPolicy
from autodl_ray.data.stream import StreamSource
from autodl_ray.images import Preprocess
from autodl_ray.runtime.cluster import ensure_ray, stop_ray

SIZE, BATCH, STORE, TIMES, DISTINCT, MiB = 224, 32, 512 * 2**20, 5, 300, 2**20


def make_samples(folder: Path, count: int) -> TrainSamples:
    """Write a pack of photos and name each of them many times."""
    rng = np.random.default_rng(0)
    blobs = []
    for _ in range(DISTINCT):
        rough = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        out = io.BytesIO()
        rough.resize((320, 240), Image.Resampling.BICUBIC).save(out, "JPEG", quality=85)
        blobs.append(out.getvalue())
    (folder / "pack").write_bytes(b"".join(blobs))
    lengths = np.array([len(blob) for blob in blobs], dtype=np.int64)
    which = np.arange(count) % DISTINCT
    offsets = (np.cumsum(lengths) - lengths)[which]
    where = Ranges(("pack",), np.zeros(count, dtype=np.int32), offsets, lengths[which])
    names = tuple(f"{i}.jpg" for i in range(count))
    return TrainSamples(folder, np.arange(count), names, np.arange(count) % 2, ("a", "b"), where=where)


class Watch:
    """Looks at the memory of this process, of Ray's workers and of the object store, four times a second."""

    def __init__(self) -> None:
        self.driver = self.worker = self.workers = self.store = self.spilled = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._stop.wait(0.25):
            try:
                self._look()
            except psutil.Error:
                continue

    def _look(self) -> None:
        me = psutil.Process()
        self.driver = max(self.driver, own_bytes(me))
        tasks = [p for p in me.children(recursive=True) if p.name().startswith("ray::") and "Agent" not in p.name()]
        sizes = [own_bytes(process) for process in tasks]
        self.worker, self.workers = max(self.worker, *sizes, 0), max(self.workers, sum(sizes))
        stats = store_stats()
        self.store = max(self.store, stats.object_store_bytes_used)
        self.spilled = stats.spilled_bytes_total

    def close(self) -> None:
        """Stop, after a last look."""
        self._stop.set()
        self._thread.join()
        self._look()


def own_bytes(process: psutil.Process) -> int:
    """Return the resident bytes that are the process's own: the object store is mapped into each of them."""
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


def store_stats() -> Any:
    """Return what Ray counts of the object store."""
    import ray
    from ray._private.internal_api import node_stats

    node = ray.nodes()[0]  # type: ignore[no-untyped-call]
    return node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False).store_stats  # type: ignore[no-untyped-call]


def main() -> None:
    """Stream, and print what it took."""
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    count = TIMES * STORE // (3 * SIZE**2)
    with tempfile.TemporaryDirectory() as folder:
        ensure_ray(Path(folder), num_cpus=2, object_store_bytes=STORE)
        train = make_samples(Path(folder), count)
        val = ValSamples(**vars(train.take(range(64))))
        source = StreamSource.make(train, val, Preprocess(size=SIZE), seed=0)
        watch, began = Watch(), time.perf_counter()
        print(f"{count} pictures, {count * 3 * SIZE**2 / STORE:.1f} x the object store; kept: {not source.is_streamed}")
        stream = source.train_epochs(start=0, stop=epochs, batch_size=BATCH, augment=AugmentPolicy.parse("light"))
        for number, epoch in enumerate(stream):
            rows = sum(len(batch) for batch in epoch)
            print(
                f"epoch {number}: {rows} rows of {count}, {rows / (time.perf_counter() - began):,.0f} img/s", flush=True
            )
            began = time.perf_counter()
        watch.close()
        print(
            f"peak of own memory: driver {watch.driver / MiB:.0f} MiB, largest worker {watch.worker / MiB:.0f} MiB, "
            f"all workers {watch.workers / MiB:.0f} MiB; object store {watch.store / MiB:.0f} of {STORE / MiB:.0f} MiB"
            f", spilled {watch.spilled / MiB:.0f} MiB"
        )
        stop_ray()


if __name__ == "__main__":
    main()
