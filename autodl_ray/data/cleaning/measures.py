"""One pass over the pictures: each is decoded once, by threads, for everything that is measured of it."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autodl_ray.data.cleaning.deep import Backbone
from autodl_ray.data.cleaning.descriptors import COPY_SIDE, perceptual_hash, small_copy
from autodl_ray.data.cleaning.looks import LOOKS, measure_looks
from autodl_ray.data.cleaning.rows import RowMemory
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.errors import DatasetError, RunInterrupted
from autodl_ray.images import ImageArray, decode_image
from autodl_ray.runtime import Context

__all__ = ["Measures", "measure"]

_VERSION = 2  # of what is measured; another number measures everything anew
_CHUNK = 16
_LEAST_SIDE = 256
_MOST_SIDE = 512
_KEEP_EVERY = 20_000


@dataclass(frozen=True)
class Measures:
    """What was measured of N pictures.

    Attributes:
        looks: (N, 4) float32, see :data:`~autodl_ray.data.cleaning.looks.LOOKS`.
        hashes: (N,) uint64 perceptual hashes.
        copies: (N, 32, 32, 3) uint8 small copies.
        deep: (N, D) float16 features of the backbone; D is 0 without one.
    """

    looks: npt.NDArray[np.float32]
    hashes: npt.NDArray[np.uint64]
    copies: npt.NDArray[np.uint8]
    deep: npt.NDArray[np.float16]

    @classmethod
    def empty(cls, count: int, width: int) -> Measures:
        """Make room for ``count`` pictures: about 3.2 kB each, and 2 bytes a feature."""
        return cls(
            looks=np.zeros((count, len(LOOKS)), dtype=np.float32),
            hashes=np.zeros(count, dtype=np.uint64),
            copies=np.zeros((count, COPY_SIDE, COPY_SIDE, 3), dtype=np.uint8),
            deep=np.zeros((count, width), dtype=np.float16),
        )

    def take(self, rows: Sequence[int]) -> Measures:
        """Return the measures of some rows."""
        if len(rows) == len(self.hashes):
            return self
        chosen = np.asarray(rows, dtype=np.int64)
        return Measures(self.looks[chosen], self.hashes[chosen], self.copies[chosen], self.deep[chosen])

    def plain(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return what does not depend on the backbone, by name."""
        return {"looks": self.looks, "hashes": self.hashes, "copies": self.copies}


def measure(
    subject: Subject, positions: Sequence[int], *, backbone: Backbone | None, context: Context
) -> tuple[Measures, dict[int, str]]:
    """Measure pictures; those whose content was measured before, in any data set, are not decoded again.

    Args:
        subject: The data set.
        positions: The records to measure.
        backbone: Computes features in the same pass; None: none.
        context: Store of what is remembered, progress, the wish to stop.

    Returns:
        The measures in the order of ``positions``, and the position → reason of pictures that could not be decoded
        after all (their rows are zero).

    Raises:
        RunInterrupted: A stop was asked for; what was measured is remembered.
    """
    contents = [subject.facts[i].sha256 for i in positions]
    found = Measures.empty(len(positions), backbone.width if backbone else 0)
    plain, deep = _memories(backbone, context)
    has_plain = plain.load(contents, found.plain())
    has_deep = deep.load(contents, {"deep": found.deep}) if backbone else np.ones(len(contents), dtype=np.bool_)
    todo = _first_of_each(contents, np.flatnonzero(~(has_plain & has_deep)))
    failed: dict[int, str] = {}
    fresh: list[int] = []

    def keep() -> None:
        new = [row for row in fresh if row not in failed]
        plain.add([contents[r] for r in new if not has_plain[r]], _rows(found.plain(), new, ~has_plain))
        if backbone:
            deep.add([contents[r] for r in new if not has_deep[r]], _rows({"deep": found.deep}, new, ~has_deep))
        fresh.clear()

    if todo:
        with context.progress.stage("look", len(todo)) as bar:
            try:
                for done, rows in enumerate(_measured(subject, positions, todo, found, backbone, failed), start=1):
                    fresh.extend(rows)
                    bar.update(min(done * _CHUNK, len(todo)), len(todo))
                    if len(fresh) >= _KEEP_EVERY:
                        keep()
                    if context.stop.is_set():
                        raise RunInterrupted("Stopped while pictures were measured.", hint="run the same line again")
            finally:
                keep()
    _copy_to_equals(contents, found, failed)
    return found, {positions[row]: why for row, why in failed.items()}


def _memories(backbone: Backbone | None, context: Context) -> tuple[RowMemory, RowMemory]:
    if not context.store.is_local:
        return RowMemory(None), RowMemory(None)
    folder = context.store.folder("cache/cleaning")
    made_by = "-".join(importlib.metadata.version(name) for name in ("cleanvision", "ImageHash", "pillow"))

    def memory(name: str) -> RowMemory:
        return RowMemory(Path(folder) / f"{name}-v{_VERSION}")

    return memory(f"looks-{made_by}"), memory(f"deep-{backbone.tag if backbone else 'none'}")


def _first_of_each(contents: Sequence[str], rows: npt.NDArray[np.int64]) -> list[int]:
    seen: dict[str, int] = {}
    for row in rows:
        seen.setdefault(contents[row], int(row))
    return sorted(seen.values())


def _rows(
    arrays: dict[str, npt.NDArray[np.generic]], rows: Sequence[int], wanted: npt.NDArray[np.bool_]
) -> dict[str, npt.NDArray[np.generic]]:
    chosen = np.array([row for row in rows if wanted[row]], dtype=np.int64)
    return {name: array[chosen] for name, array in arrays.items()}


def _copy_to_equals(contents: Sequence[str], found: Measures, failed: dict[int, str]) -> None:
    first: dict[str, int] = {}
    pairs = [(row, first[key]) for row, key in enumerate(contents) if first.setdefault(key, row) != row]
    for row, source in pairs:
        if source in failed:
            failed[row] = failed[source]
    if pairs:
        rows, sources = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
        for array in (*found.plain().values(), found.deep):
            array[rows] = array[sources]


def _measured(
    subject: Subject,
    positions: Sequence[int],
    todo: Sequence[int],
    found: Measures,
    backbone: Backbone | None,
    failed: dict[int, str],
) -> Iterator[Sequence[int]]:
    """Fill ``found`` chunk by chunk, and yield the rows of each chunk; only a few chunks are under way at a time."""

    def work(rows: Sequence[int]) -> Sequence[int]:
        inputs, good = [], []
        for row in rows:
            record = subject.listing.records[positions[row]]
            try:
                image = decode_image(subject.listing.read(record), at_least=_LEAST_SIDE)
                _fill(found, row, image)
                if backbone:
                    inputs.append(backbone.prepare(image))
                good.append(row)
            except DatasetError as error:
                failed[row] = error.what
            except OSError as error:
                failed[row] = f"The file cannot be read: {error.strerror}."
        for start in range(0, len(inputs), 2) if backbone else ():
            assert backbone is not None
            found.deep[good[start : start + 2]] = backbone.run(np.stack(inputs[start : start + 2]))
        return rows

    chunks = iter([todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)])
    threads = min(16, len(os.sched_getaffinity(0)))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="look")
    try:
        waiting: list[Future[Sequence[int]]] = [pool.submit(work, chunk) for chunk in islice(chunks, 2 * threads)]
        while waiting:
            yield waiting.pop(0).result()
            waiting.extend(pool.submit(work, chunk) for chunk in islice(chunks, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _fill(found: Measures, row: int, image: ImageArray) -> None:
    from PIL import Image

    picture = Image.fromarray(image)
    if max(picture.size) > _MOST_SIDE:
        picture.thumbnail((_MOST_SIDE, _MOST_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    found.looks[row] = measure_looks(picture)
    found.hashes[row] = perceptual_hash(picture)
    found.copies[row] = small_copy(picture)
