"""What the tests of the stream share: digits, photos, photos in a tar, coloured boxes; the digest of what came out."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autodl_ray.artifacts import BoxTable, DatasetVersion, Ranges, TrainSamples, ValSamples
from autodl_ray.augment import AugmentPolicy
from autodl_ray.data import run
from autodl_ray.data.samples import write_digits
from autodl_ray.data.stream import StreamSource
from autodl_ray.spec import DataSpec
from tests.data.conftest import make_context


def digits_version(folder: Path, n: int = 150) -> DatasetVersion:
    """Return a version of the first digits."""
    root = write_digits(folder / "digits", n=n)
    return run(DataSpec(path=str(root)), context=make_context(folder / "runs"))


def taken(source: StreamSource, augment: str = "light", **options: Any) -> list[list[tuple[int, int, str]]]:
    """Return (id, label, digest of the pixels) of every sample, by epoch."""
    options = {"start": 0, "stop": 2, "batch_size": 16, **options}
    return [
        [
            (int(i), int(y), hashlib.md5(x.tobytes()).hexdigest())
            for batch in epoch
            for i, y, x in zip(batch.ids, batch.labels, batch.images, strict=True)
        ]
        for epoch in source.train_epochs(augment=AugmentPolicy.parse(augment), **options)
    ]


def photo_splits(folder: Path, *, train: int = 50, val: int = 11) -> tuple[TrainSamples, ValSamples]:
    """Write JPEGs of different sizes, most of them so large that training decodes them at a half."""
    rng = np.random.default_rng(0)
    root = folder / "photos"
    root.mkdir(parents=True)
    paths = []
    for i in range(train + val):
        height, width = (int(side) for side in rng.integers(100, 400, 2))
        rough = Image.fromarray(rng.integers(0, 255, (9, 11, 3), dtype=np.uint8))
        rough.resize((width, height), Image.Resampling.BICUBIC).save(root / f"{i:03}.jpg", quality=85)
        paths.append(f"{i:03}.jpg")
    labels = np.arange(train + val) % 3
    ids = np.arange(train + val) * 7  # not the positions
    classes = ("a", "b", "c")
    return (
        TrainSamples(root, ids[:train], tuple(paths[:train]), labels[:train], classes),
        ValSamples(root, ids[train:], tuple(paths[train:]), labels[train:], classes),
    )


def in_tar(samples: TrainSamples, file: Path) -> TrainSamples:
    """Return the same samples as members of a tar."""
    with tarfile.open(file, "w") as tar:
        for i, path in enumerate(samples.paths):
            info = tarfile.TarInfo(path)
            data = samples.read(i)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with tarfile.open(file) as tar:
        members = tar.getmembers()
        offset = np.array([member.offset_data for member in members], dtype=np.int64)
        length = np.array([member.size for member in members], dtype=np.int64)
    where = Ranges((file.name,), np.zeros(len(members), dtype=np.int32), offset, length)
    return replace(samples, root=file.parent, where=where)


def box_splits(folder: Path, *, train: int = 24, val: int = 8) -> tuple[TrainSamples, ValSamples]:
    """Write grey pictures with a red, a green and a blue rectangle each, and no rectangle in every eighth."""
    rng = np.random.default_rng(1)
    root = folder / "boxes"
    root.mkdir(parents=True)
    coords: list[list[int]] = []
    labels: list[int] = []
    starts = [0]
    for i in range(train + val):
        picture = np.full((300, 360, 3), 110, dtype=np.uint8)
        for colour in range(0 if i % 8 == 7 else 3):
            left, top = int(rng.integers(120 * colour, 120 * colour + 50)), int(rng.integers(0, 200))
            right, bottom = left + int(rng.integers(40, 65)), top + int(rng.integers(40, 95))
            picture[top:bottom, left:right] = np.eye(3, dtype=np.uint8)[colour] * 220
            coords.append([left, top, right, bottom])
            labels.append(colour)
        starts.append(len(labels))
        Image.fromarray(picture).save(root / f"{i}.jpg", quality=95, subsampling=0)
    none = np.zeros(len(labels), dtype=np.bool_)
    table = BoxTable(np.array(coords, dtype=np.float32), np.array(labels), np.array(starts), none, none)
    paths = tuple(f"{i}.jpg" for i in range(train + val))
    ids, no_label = np.arange(train + val), np.full(train + val, -1)
    everything = TrainSamples(root, ids, paths, no_label, ("red", "green", "blue"), boxes=table)
    kept = everything.take(range(train, train + val))
    return everything.take(range(train)), ValSamples(**vars(kept))
