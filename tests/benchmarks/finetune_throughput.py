"""Fine-tuning throughput: our training against a plain float32 PyTorch loop on the same pictures, in one process.

Run:  python -m tests.benchmarks.finetune_throughput [--images 160] [--size 224] [--batch 32]

Both fine-tune efficientnet_lite0 from its packaged ImageNet weights on the same generated 256 x 192 JPEGs, with
random crops and flips, batch 32, AdamW. The plain loop is what a tutorial shows: ImageFolder, DataLoader with one
worker a core, float32. Ours is ``train.loop.fit`` fed by ``StreamSource``, as a trial runs it; the first epoch of
either warms up and is not counted. Goal: at least 2.3 times as many images a second.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from autodl_ray.artifacts import TrainSamples, ValSamples
from autodl_ray.data.stream import StreamSource
from autodl_ray.models.classifier import build
from autodl_ray.models.zoo import ZOO, choose
from autodl_ray.seeding import rng_for
from autodl_ray.spec.sections import ModelSpec, TrainSpec
from autodl_ray.train.config import resolve
from autodl_ray.train.loop import fit

CLASSES = ("a", "b", "c")


def write_photos(root: Path, count: int) -> tuple[str, ...]:
    """Write JPEGs that are as hard to decode as photos, in class folders."""
    names = []
    for i in range(count):
        rng = rng_for(0, "photo", i)
        picture = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((256, 192))
        noisy = np.asarray(picture, dtype=np.int16) + rng.integers(-12, 13, (192, 256, 3), dtype=np.int16)
        name = f"{CLASSES[i % len(CLASSES)]}/{i:05d}.jpg"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / name, quality=90)
        names.append(name)
    return tuple(names)


def plain_loop(root: Path, *, size: int, batch: int) -> float:
    """Return the images a second of the second epoch of a plain loop."""
    from torchvision import datasets, transforms

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.5, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.2, 0.2, 0.2),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    folder = datasets.ImageFolder(str(root), transform)
    workers = len(os.sched_getaffinity(0))
    loader = torch.utils.data.DataLoader(
        folder, batch_size=batch, shuffle=True, num_workers=workers, persistent_workers=True
    )
    model = build("efficientnet_lite0", num_classes=len(CLASSES), image_size=size, weights="packaged", dropout=0.2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    model.train()
    speed = 0.0
    for _ in range(2):
        started = time.perf_counter()
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        speed = len(folder) / (time.perf_counter() - started)
    return speed


def our_loop(root: Path, names: tuple[str, ...], *, size: int, batch: int) -> tuple[float, float, str]:
    """Return the images a second of our second epoch, the share of the time that waited for data, the precision."""
    labels = np.arange(len(names), dtype=np.int64) % len(CLASSES)
    train = TrainSamples(root, np.arange(len(names)), names, labels, CLASSES)
    val = ValSamples(root, np.arange(8), names[:8], labels[:8], CLASSES)
    entry, preprocess, weights = choose(ModelSpec(image_size=size), (256, 192))
    assert entry is ZOO["efficientnet_lite0"]
    config = resolve(
        TrainSpec(batch_size=batch),
        entry,
        preprocess=preprocess,
        num_classes=len(CLASSES),
        weights=weights,
        epochs=2,
        seed=0,
    )
    source = StreamSource.make(train, val, preprocess, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        result = fit(config, source, folder=Path(folder), report=lambda row: None, should_stop=lambda: False)
    last = result.history[-1]
    return last["images_per_s"], last["data_wait"], result.precision


def main() -> None:
    """Print both speeds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = write_photos(Path(folder), given.images)
        ours, wait, precision = our_loop(Path(folder), names, size=given.size, batch=given.batch)
        plain = plain_loop(Path(folder), size=given.size, batch=given.batch)
    print(f"torch threads {torch.get_num_threads()}, {torch.backends.cpu.get_cpu_capability()}")
    print(f"plain fp32 loop      {plain:7.1f} images/s")
    print(f"train.loop.fit       {ours:7.1f} images/s   (precision {precision}, waiting for data {wait:.0%})")
    print(f"ratio                {ours / plain:7.2f}            (goal 2.3)")


if __name__ == "__main__":
    main()
