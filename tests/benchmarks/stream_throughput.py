"""The stream against torch's DataLoader (2 workers, cv2 and albumentations) on the same photos and the same work.

Run from the repository's root: ``python -m tests.benchmarks.stream_throughput FOLDER [EPOCHS]``. Each side decodes,
crops at random to 224, flips and changes the colours; the rate is taken from the second epoch on.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from autodl_ray.artifacts import DatasetVersion, Store, TrainSamples
from autodl_ray.augment import AugmentPolicy
from autodl_ray.data import run
from autodl_ray.data.stream import StreamSource
from autodl_ray.images import Preprocess
from autodl_ray.runtime import Budget, Context, SilentProgress, StopFlag
from autodl_ray.runtime.cluster import ensure_ray, stop_ray
from autodl_ray.spec import DataSpec

SIZE, BATCH, WORKERS = 224, 32, 2


class Photos:
    """The rival's data set: cv2 and albumentations."""

    def __init__(self, samples: TrainSamples) -> None:
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
        import albumentations as A

        self.samples = samples
        self.transform = A.Compose(
            [
                A.RandomResizedCrop(size=(SIZE, SIZE), scale=(0.5, 1.0), ratio=(0.75, 1.33)),
                A.HorizontalFlip(p=0.5),
                A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0, p=0.8),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> Any:
        import cv2

        cv2.setNumThreads(1)
        image = cv2.imread(str(self.samples.root / self.samples.paths[i]), cv2.IMREAD_COLOR_RGB)
        return self.transform(image=image)["image"], int(self.samples.labels[i])


def rate(name: str, began: float, epochs: Iterable[Iterable[Any]], count: int) -> float:
    """Work the epochs off; print seconds to the first batch and images a second from the second epoch on."""
    first, marks = None, []
    for epoch in epochs:
        for _ in epoch:
            first = first or time.perf_counter() - began
        marks.append(time.perf_counter())
    steady = count * (len(marks) - 1) / (marks[-1] - marks[0])
    print(f"{name}: first batch {first:.2f} s, steady {steady:,.0f} img/s")
    return steady


def loader_epochs(samples: TrainSamples, epochs: int) -> Iterator[Iterable[Any]]:
    """The rival."""
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        Photos(samples),  # type: ignore[arg-type]
        batch_size=BATCH,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
    )
    for _ in range(epochs):
        yield loader


def stream_epochs(version: DatasetVersion, epochs: int) -> Iterator[Iterable[Any]]:
    """Ours."""
    source = StreamSource.make(version.train, version.val, Preprocess(size=SIZE), seed=0)
    return source.train_epochs(start=0, stop=epochs, batch_size=BATCH, augment=AugmentPolicy.parse("light"))


def main() -> None:
    """Measure both, in turns, and their ratio."""
    epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        context = Context(Store(store), "bench", 0, Budget(600), SilentProgress(), StopFlag(store / "stop"))
        version = run(DataSpec(path=sys.argv[1]), context=context)
        count = len(version.train)
        ensure_ray(store, num_cpus=WORKERS)
        ratios = []
        for turn in range(2):
            ours = rate(f"stream {turn}", time.perf_counter(), stream_epochs(version, epochs), count)
            theirs = rate(f"DataLoader {turn}", time.perf_counter(), loader_epochs(version.train, epochs), count)
            ratios.append(ours / theirs)
        print(f"stream / DataLoader: {np.mean(ratios):.2f} (turns: {', '.join(f'{r:.2f}' for r in ratios)})")
        stop_ray()


if __name__ == "__main__":
    main()
