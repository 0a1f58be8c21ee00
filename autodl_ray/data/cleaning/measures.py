"""One pass over the pictures: each is decoded once, by threads, for everything that is measured of it."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator, Sequence
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
_CALL = 2
_LEAST_SIDE = 256
_MOST_SIDE = 512
_KEEP_EVERY = 20_000

Work = Callable[[Sequence[int]], Sequence[int]]


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
        backbone: Computes features in the same pass, but none of the sealed test split; None: none at all.
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
    open_rows = np.array([backbone is not None and subject.split(i) != "test" for i in positions], dtype=np.bool_)
    new_plain = _first_of_each(contents, ~plain.load(contents, found.plain()))
    new_deep = _first_of_each(contents, open_rows & ~deep.load(contents, {"deep": found.deep}))
    todo = np.flatnonzero(new_plain | new_deep).tolist()
    failed: dict[int, str] = {}
    fresh: list[int] = []

    def keep() -> None:
        good = np.array([row for row in fresh if row not in failed], dtype=np.int64)
        for memory, new, arrays in ((plain, new_plain, found.plain()), (deep, new_deep, {"deep": found.deep})):
            rows = good[new[good]]
            memory.add([contents[row] for row in rows.tolist()], {name: array[rows] for name, array in arrays.items()})
        fresh.clear()

    if todo:
        with context.progress.stage("look", len(todo)) as bar:
            try:
                work = _worker(subject, positions, found, backbone, new_deep, failed)
                for done, rows in enumerate(_by_threads(work, todo), start=1):
                    fresh.extend(rows)
                    bar.update(min(done * _CHUNK, len(todo)), len(todo))
                    if len(fresh) >= _KEEP_EVERY:
                        keep()
                    if context.stop.is_set():
                        raise RunInterrupted("Stopped while pictures were measured.", hint="run the same line again")
            finally:
                keep()
    failed.update(_copy_to_equals(contents, list(found.plain().values()), np.ones_like(open_rows), failed))
    _copy_to_equals(contents, [found.deep], open_rows, failed)
    return found, {positions[row]: why for row, why in failed.items()}


def _memories(backbone: Backbone | None, context: Context) -> tuple[RowMemory, RowMemory]:
    if not context.store.is_local:
        return RowMemory(None), RowMemory(None)
    folder = context.store.folder("cache/cleaning")
    made_by = "-".join(importlib.metadata.version(name) for name in ("cleanvision", "ImageHash", "pillow"))

    def memory(name: str) -> RowMemory:
        return RowMemory(Path(folder) / f"{name}-v{_VERSION}")

    return memory(f"looks-{made_by}"), memory(f"deep-{backbone.tag if backbone else 'none'}")


def _first_of_each(contents: Sequence[str], wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Of equal contents only the first wanted one is worked on."""
    first: dict[str, int] = {}
    for row in np.flatnonzero(wanted).tolist():
        first.setdefault(contents[row], row)
    chosen = np.zeros_like(wanted)
    chosen[list(first.values())] = True
    return chosen


def _copy_to_equals(
    contents: Sequence[str],
    arrays: Sequence[npt.NDArray[np.generic]],
    wanted: npt.NDArray[np.bool_],
    failed: dict[int, str],
) -> dict[int, str]:
    """Copy rows to those with the same content; return which of them failed with the row they are copied from."""
    first: dict[str, int] = {}
    pairs = [(row, first.setdefault(contents[row], row)) for row in np.flatnonzero(wanted).tolist()]
    pairs = [(row, source) for row, source in pairs if row != source]
    if pairs:
        rows, sources = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
        for array in arrays:
            array[rows] = array[sources]
    return {row: failed[source] for row, source in pairs if source in failed}


def _worker(
    subject: Subject,
    positions: Sequence[int],
    found: Measures,
    backbone: Backbone | None,
    new_deep: npt.NDArray[np.bool_],
    failed: dict[int, str],
) -> Work:
    """Return the function that fills ``found`` for some rows, and notes in ``failed`` what cannot be decoded."""

    def work(rows: Sequence[int]) -> Sequence[int]:
        inputs: list[tuple[int, ImageArray]] = []
        for row in rows:
            record = subject.listing.records[positions[row]]
            try:
                image = decode_image(subject.listing.read(record), at_least=_LEAST_SIDE)
                _fill(found, row, image)
                if backbone and new_deep[row]:
                    inputs.append((row, backbone.prepare(image)))
            except DatasetError as error:
                failed[row] = error.what
            except OSError as error:
                failed[row] = f"The file cannot be read: {error.strerror}."
        for start in range(0, len(inputs), _CALL) if backbone else ():
            assert backbone is not None
            some = inputs[start : start + _CALL]
            found.deep[[row for row, _ in some]] = backbone.run(np.stack([image for _, image in some]))
        return rows

    return work


def _by_threads(work: Work, todo: Sequence[int]) -> Iterator[Sequence[int]]:
    """Work on chunks of rows, and yield each that is done; only a few are under way at a time."""
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
