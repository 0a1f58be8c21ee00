"""Tiny pictures, decoded and kept for the processes that train, which augment them without the help of tasks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts import TrainSamples
from autodl_ray.augment import AugmentPolicy
from autodl_ray.data.stream.batch import Item, batch_of
from autodl_ray.data.stream.execution import Runner, fetch
from autodl_ray.data.stream.job import augmented, fill_of
from autodl_ray.data.stream.order import Plan, Slice, augment_seed
from autodl_ray.errors import DatasetError
from autodl_ray.images import ImageArray, Preprocess, decode_image, fit_image

__all__ = ["KeptPictures", "KeptTrain"]

_READ_AT_ONCE = 128


@dataclass(frozen=True)
class KeptPictures:
    """The readable pictures of a split, decoded.

    Attributes:
        rows: (K,) positions in the split of the pictures that could be read.
        heights: (K,) in pixels.
        widths: (K,) in pixels.
        unreadable: Path → reason of the others.
        pixels: What stands for the (sum of H · W · 3,) uint8 pixels.
    """

    rows: npt.NDArray[np.int64]
    heights: npt.NDArray[np.int64] = field(repr=False)
    widths: npt.NDArray[np.int64] = field(repr=False)
    unreadable: dict[str, str]
    pixels: Any = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def square(self, size: int) -> ImageArray | None:
        """Return all pictures as (K, S, S, 3) uint8, read-only, where each is S × S already; else None."""
        if (self.heights == size).all() and (self.widths == size).all():
            pixels: ImageArray = fetch(self.pixels)
            return pixels.reshape(len(self), size, size, 3)
        return None

    def views(self) -> list[ImageArray]:
        """Return the pictures, (H, W, 3) uint8 each, read-only, without a copy."""
        pixels = fetch(self.pixels)
        ends = np.cumsum(self.heights * self.widths * 3)
        starts = ends - self.heights * self.widths * 3
        return [
            pixels[start:end].reshape(height, width, 3)
            for start, end, height, width in zip(starts, ends, self.heights, self.widths, strict=True)
        ]


@dataclass(frozen=True)
class KeptTrain:
    """A training split of tiny pictures.

    Attributes:
        samples: The split.
        raw: At their own size.
        square: S × S by the fit rule, where that fits in memory too: what is not augmented.
    """

    samples: TrainSamples = field(repr=False)
    raw: KeptPictures
    square: KeptPictures | None = field(repr=False)

    @classmethod
    def make(
        cls, samples: TrainSamples, preprocess: Preprocess, runner: Runner, *, most_bytes: int, at_least: int
    ) -> KeptTrain | None:
        """Decode all pictures; None when they need more than ``most_bytes``."""
        raw = _keep(samples, lambda data: decode_image(data, at_least=at_least), runner, most_bytes)
        if raw is None:
            return None
        square = raw
        if raw.square(preprocess.size) is None:
            if len(raw) * 3 * preprocess.size**2 > most_bytes:
                return cls(samples, raw, None)
            fill = fill_of(preprocess)
            images = [fit_image(view, size=preprocess.size, fit=preprocess.fit, fill=fill) for view in raw.views()]
            square = replace(_pack(images, raw.rows, runner), unreadable=raw.unreadable)
        return cls(samples, raw, square)

    def items(
        self,
        plan: Plan,
        *,
        start: int,
        stop: int,
        skip: int,
        preprocess: Preprocess,
        augment: AugmentPolicy,
        seed: int,
    ) -> Iterator[Item]:
        """Yield the batches of epochs ``start`` to ``stop`` (excluded); ``plan`` is over the readable pictures."""
        images = None if self.square is None or not augment.is_empty else self.square.square(preprocess.size)
        views = self.raw.views() if images is None else []
        for epoch in range(start, stop):
            for part in plan.slices(epoch, skip if epoch == start else 0):
                if images is not None:
                    made = images[part.positions]
                else:
                    made = self._augmented(views, part, epoch=epoch, preprocess=preprocess, augment=augment, seed=seed)
                yield Item(epoch, batch_of(made, self.samples, self.raw.rows[part.positions]), 0)

    def _augmented(
        self,
        views: Sequence[ImageArray],
        part: Slice,
        *,
        epoch: int,
        preprocess: Preprocess,
        augment: AugmentPolicy,
        seed: int,
    ) -> ImageArray:
        size, fill = preprocess.size, fill_of(preprocess)
        images = np.empty((len(part.positions), size, size, 3), dtype=np.uint8)
        for i, (position, occurrence) in enumerate(zip(part.positions, part.occurrences, strict=True)):
            if augment.is_empty:
                images[i] = fit_image(views[position], size=size, fit=preprocess.fit, fill=fill)
                continue
            sample_id = int(self.samples.ids[self.raw.rows[position]])
            drawn = augment_seed(seed, epoch=epoch, sample_id=sample_id, occurrence=int(occurrence))
            images[i] = augmented(views[position], augment, preprocess=preprocess, rng_seed=drawn)
        return images


def _keep(
    samples: TrainSamples, read: Callable[[bytes], ImageArray], runner: Runner, most_bytes: int
) -> KeptPictures | None:
    images: list[ImageArray] = []
    rows: list[int] = []
    unreadable: dict[str, str] = {}
    total = 0
    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="keep")
    # A future costs more than reading a tiny picture out of an open file: a thread reads many in a row.
    starts = range(0, len(samples), _READ_AT_ONCE)
    try:
        for start, results in zip(starts, pool.map(lambda at: _read_some(samples, at, read), starts), strict=True):
            for position, result in enumerate(results, start):
                if isinstance(result, str):
                    unreadable[samples.paths[position]] = result
                    continue
                total += result.nbytes
                images.append(result)
                rows.append(position)
            if total > most_bytes:
                return None
    finally:
        pool.shutdown(cancel_futures=True)
    return replace(_pack(images, np.array(rows, dtype=np.int64), runner), unreadable=unreadable)


def _read_some(samples: TrainSamples, start: int, read: Callable[[bytes], ImageArray]) -> list[ImageArray | str]:
    return [_read(samples, position, read) for position in range(start, min(start + _READ_AT_ONCE, len(samples)))]


def _read(samples: TrainSamples, position: int, read: Callable[[bytes], ImageArray]) -> ImageArray | str:
    try:
        return read(samples.read(position))
    except DatasetError as error:
        return error.what
    except OSError as error:
        return f"The file cannot be read: {error.strerror}."


def _pack(images: Sequence[ImageArray], rows: npt.NDArray[np.int64], runner: Runner) -> KeptPictures:
    flat = np.concatenate([image.reshape(-1) for image in images]) if images else np.zeros(0, dtype=np.uint8)
    return KeptPictures(
        rows=rows,
        heights=np.array([image.shape[0] for image in images], dtype=np.int64),
        widths=np.array([image.shape[1] for image in images], dtype=np.int64),
        unreadable={},
        pixels=runner.share(flat),
    )
