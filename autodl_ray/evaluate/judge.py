"""Answers of the exported model on every opened test picture: decoded ahead in threads, in bounded memory."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts import TestSamples
from autodl_ray.errors import AutoDLError, StageError
from autodl_ray.images import ImageArray, decode_image
from autodl_ray.runtime import StageProgress

__all__ = ["Answers", "Predict", "Unreadable", "judge"]

Predict = Callable[[Sequence[ImageArray]], npt.NDArray[np.float32]]
"""Decoded pictures of any size → (N, C) float32 probabilities."""

_BATCH = 32
_BATCH_BYTES = 64 * 2**20
_AHEAD_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Unreadable:
    """A test picture that could not be decoded, and so was not judged."""

    path: str
    reason: str


@dataclass(frozen=True)
class Answers:
    """What the models answered.

    Attributes:
        positions: (N,) int64, the positions in the samples that were read, in their order.
        probabilities: By model, (N, C) float32.
        predict_s: By model, seconds spent in its predictions (decoding left out).
        unreadable: The pictures that were not judged.
    """

    positions: npt.NDArray[np.int64]
    probabilities: Mapping[str, npt.NDArray[np.float32]]
    predict_s: Mapping[str, float]
    unreadable: tuple[Unreadable, ...]


def judge(samples: TestSamples, models: Mapping[str, Predict], *, progress: StageProgress) -> Answers:
    """Ask every model about every readable picture; all models see the same decoded pixels.

    Args:
        samples: The opened test split.
        models: Name → predictor; the progress note shows the accuracy of the first.
        progress: The bar, moved picture by picture.

    Raises:
        StageError: No picture is readable, or a predictor failed or returned something else than probabilities.
    """
    positions: list[int] = []
    unreadable: list[Unreadable] = []
    rows: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in models}
    seconds = dict.fromkeys(models, 0.0)
    first, hits = next(iter(models)), 0
    for batch in _batches(samples, unreadable):
        places = [place for place, _ in batch]
        for name, predict in models.items():
            begin = time.perf_counter()
            rows[name].append(_ask(name, predict, [image for _, image in batch], len(samples.classes)))
            seconds[name] += time.perf_counter() - begin
        positions += places
        hits += int((rows[first][-1].argmax(axis=1) == samples.labels[places]).sum())
        progress.update(len(positions) + len(unreadable), note=f"test accuracy {hits / len(positions):.3f}")
    if not positions:
        raise StageError(
            "No test picture can be read.",
            seen=f"{len(samples)} in the split; the first: {unreadable[0].reason}" if unreadable else "an empty split",
            hint="check that the data folder is still where it was when its version was made",
        )
    probabilities = {name: np.concatenate(parts) for name, parts in rows.items()}
    return Answers(np.asarray(positions, np.int64), probabilities, seconds, tuple(unreadable))


def _ask(name: str, predict: Predict, images: list[ImageArray], num_classes: int) -> npt.NDArray[np.float32]:
    try:
        answer = np.asarray(predict(images), dtype=np.float32)
    except AutoDLError:
        raise
    except Exception as error:
        raise StageError(f"The exported model ({name}) failed on test pictures.", seen=error) from error
    if answer.shape != (len(images), num_classes) or not np.isfinite(answer).all():
        raise StageError(
            f"The exported model ({name}) did not return probabilities.",
            seen=f"shape {answer.shape}, finite: {bool(np.isfinite(answer).all())}",
            accepted=f"finite values of shape {(len(images), num_classes)}",
        )
    return answer


def _batches(samples: TestSamples, unreadable: list[Unreadable]) -> Iterator[list[tuple[int, ImageArray]]]:
    """Yield (position, picture) lists in order; a batch ends at 32 pictures or 64 MiB of pixels."""
    batch: list[tuple[int, ImageArray]] = []
    size = 0
    for position, outcome in _decoded_ahead(samples):
        if isinstance(outcome, Unreadable):
            unreadable.append(outcome)
            continue
        batch.append((position, outcome))
        size += outcome.nbytes
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _decoded_ahead(samples: TestSamples) -> Iterator[tuple[int, ImageArray | Unreadable]]:
    """Yield the pictures in order while threads decode the next ones, up to 256 MiB (by the largest seen) ahead."""
    num_threads = max(2, min(8, os.cpu_count() or 2))
    pending: deque[tuple[int, Future[ImageArray | Unreadable]]] = deque()
    largest, submitted = 1, 0
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        try:
            while submitted < len(samples) or pending:
                ahead = num_threads if largest == 1 else max(num_threads, min(2 * _BATCH, _AHEAD_BYTES // largest))
                while submitted < len(samples) and len(pending) < ahead:
                    pending.append((submitted, pool.submit(_decode, samples, submitted)))
                    submitted += 1
                position, future = pending.popleft()
                outcome = future.result()
                del future  # or the pool's last picture would be kept alive
                if not isinstance(outcome, Unreadable):
                    largest = max(largest, outcome.nbytes)
                yield position, outcome
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode(samples: TestSamples, position: int) -> ImageArray | Unreadable:
    try:
        return decode_image(samples.read(position))
    except (AutoDLError, OSError) as error:
        reason = error.what if isinstance(error, AutoDLError) else str(error.strerror or error)
        return Unreadable(samples.paths[position], reason)
