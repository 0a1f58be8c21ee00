"""What the tests of the stream share: a version of digits, and the digest of what came out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from autodl_ray.artifacts import DatasetVersion
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
