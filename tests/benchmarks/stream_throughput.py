"""The stream against torch's DataLoader (2 workers, cv2 and albumentations) on the same photos and the same work.

Run from the repository's root: ``python -m tests.benchmarks.stream_throughput FOLDER [EPOCHS]``. Each side decodes,
crops at random to 224, flips and changes the colours. Three ratios come out, each the median of turns that follow one
another (ours, theirs, ours, theirs):

- ``streamed``: images a second from the second epoch on, where every epoch decodes again;
- ``kept``: the same, where the decoded photos are kept in the object store (ours alone; the rival has no such thing);
- ``first batch``: seconds from making the source to its first batch, each in a process of its own that has imported
  torch and, on our side, started Ray: what happens before, beside the model's making, is printed apart.
"""

from __future__ import annotations

import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from autodl_ray.artifacts import Store, TrainSamples, ValSamples
from autodl_ray.augment import AugmentPolicy
from autodl_ray.images import Preprocess
from autodl_ray.runtime import Budget, Context, SilentProgress, StopFlag
from autodl_ray.runtime.cluster import ensure_ray, stop_ray

SIZE, BATCH, WORKERS, TURNS = 224, 32, 2, 3


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


def rate(name: str, epochs: Iterable[Iterable[Any]], count: int) -> float:
    """Work the epochs off; return and print images a second from the second epoch on."""
    marks = []
    for epoch in epochs:
        for _ in epoch:
            pass
        marks.append(time.perf_counter())
    steady = count * (len(marks) - 1) / (marks[-1] - marks[0])
    print(f"  {name}: {steady:,.0f} img/s", flush=True)
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


def stream_epochs(train: TrainSamples, val: ValSamples, epochs: int, *, keep: bool) -> Iterator[Iterable[Any]]:
    """Ours."""
    from autodl_ray.data.stream import StreamSource

    limit = {} if keep else {"memory_limit_bytes": 0}
    source = StreamSource.make(train, val, Preprocess(size=SIZE), seed=0, **limit)
    assert source.is_streamed is not keep, "the object store is too small to keep these photos"
    return source.train_epochs(start=0, stop=epochs, batch_size=BATCH, augment=AugmentPolicy.parse("light"))


def steady(train: TrainSamples, val: ValSamples, epochs: int) -> None:
    """Print the ratios of the steady rates."""
    ratios: dict[bool, list[float]] = {False: [], True: []}
    for keep in (False, True):
        print(f"{'kept' if keep else 'streamed'}:")
        for _ in range(TURNS):
            ours = rate("stream", stream_epochs(train, val, epochs, keep=keep), len(train))
            theirs = rate("DataLoader", loader_epochs(train, epochs), len(train))
            ratios[keep].append(ours / theirs)
    for keep, values in ratios.items():
        shown = ", ".join(f"{value:.2f}" for value in values)
        goal = 1.5 if keep else 1.2
        name = "kept" if keep else "streamed"
        print(f"{name} / DataLoader: {statistics.median(values):.2f} (turns {shown}; goal at least {goal})")


def first_batch_here(side: str, splits: Path) -> None:
    """Print the seconds to a first batch in this process, and those that Ray took to start before."""
    import torch.utils.data  # noqa: F401  (any training has it)

    train, val = pickle.loads(splits.read_bytes())
    began = time.perf_counter()
    if side == "stream":
        ensure_ray(num_cpus=WORKERS)
    ready = time.perf_counter()
    epochs = stream_epochs(train, val, 2, keep=True) if side == "stream" else loader_epochs(train, 2)
    next(iter(next(iter(epochs))))
    print(time.perf_counter() - ready, ready - began)
    del epochs
    stop_ray()


def first_batches(splits: Path) -> None:
    """Print the ratio of the times to the first batch."""
    print("first batch, each in a process of its own:")
    found: dict[str, list[float]] = {"stream": [], "DataLoader": []}
    for _ in range(TURNS):
        for side, values in found.items():
            command = [sys.executable, "-m", "tests.benchmarks.stream_throughput", "--first", side, str(splits)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            values.append(float(out[-2]))
            before = f" (and {float(out[-1]):.2f} s for the start of Ray before)" if side == "stream" else ""
            print(f"  {side}: {values[-1]:.2f} s{before}", flush=True)
    ratios = [ours / theirs for ours, theirs in zip(*found.values(), strict=True)]
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"first batch, stream / DataLoader: {statistics.median(ratios):.2f} (turns {shown}; goal at most 2)")


def make_splits(folder: str, store: Path) -> tuple[TrainSamples, ValSamples]:
    """Return the training and validation split of a folder of photos."""
    from autodl_ray.data import run
    from autodl_ray.spec import DataSpec

    context = Context(Store(store), "bench", 0, Budget(600), SilentProgress(), StopFlag(store / "stop"))
    version = run(DataSpec(path=folder), context=context)
    return version.train, version.val


def main() -> None:
    """Measure both, in turns, and their ratios."""
    if sys.argv[1] == "--first":
        first_batch_here(sys.argv[2], Path(sys.argv[3]))
        return
    epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory() as folder:
        train, val = make_splits(sys.argv[1], Path(folder))
        splits = Path(folder) / "splits.pickle"
        splits.write_bytes(pickle.dumps((train, val)))
        first_batches(splits)
        ensure_ray(Path(folder), num_cpus=WORKERS)
        steady(train, val, epochs)
        stop_ray()


if __name__ == "__main__":
    main()
