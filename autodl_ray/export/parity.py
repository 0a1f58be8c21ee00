"""Whether the exported files answer like the network they came from, on original files, alone and in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from autodl_ray.artifacts import LearningSamples
from autodl_ray.artifacts.reference import answers_document
from autodl_ray.errors import StageError, in_short
from autodl_ray.export.graph import INPUT, OUTPUT
from autodl_ray.export.layers import explain_onnx
from autodl_ray.export.pictures import decoded
from autodl_ray.images import ImageArray, Preprocess, fit_image
from autodl_ray.models.predictor import group_by_size, open_session
from autodl_ray.models.preprocess import preprocess_tensor
from autodl_ray.tasks.classification import score

__all__ = [
    "BATCHES",
    "MAX_DIFFERENCE",
    "MIN_AGREEMENT",
    "Checked",
    "ParityRecord",
    "Pictures",
    "Probabilities",
    "check_files",
    "check_parity",
    "compare",
    "network_answers",
    "run_onnx",
]

MIN_AGREEMENT = 0.995
MAX_DIFFERENCE = 1e-3
BATCHES = (1, 3, 32)
"""Pictures a call; a batch of 3 or 32 holds different pictures of one size."""

_AT_LEAST = 64
_CHUNK_BYTES = 256 * 2**20  # of decoded pictures at a time
_FILLER_PX = 256

Pictures = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]
Run = Callable[[Pictures], Probabilities]
"""(N, H, W, 3) uint8 → (N, C) float32."""


@dataclass(frozen=True)
class ParityRecord:
    """An exported file against the network.

    Attributes:
        pictures: How many pictures of the validation split were compared.
        batches: Sizes of the batches given to the exported file.
        agreement: Share of equal top-1 classes, the worst of the batch sizes.
        max_difference: Largest difference of a probability.
        mean_difference: Mean difference of the probabilities, the worst of the batch sizes.
        scores: Of the exported file on the compared pictures: ``accuracy``, ``macro_f1``, ``loss``.
        non_square: How many of the pictures were not square.
        by_batch: Batch size → ``agreement``, ``max_difference``, ``mean_difference``.
        min_agreement: Least accepted agreement.
        max_accepted: Largest accepted difference.
        answers: How often the exported file answered each class, and how sure it was; see ``answers_document``.
    """

    pictures: int
    batches: tuple[int, ...]
    agreement: float
    max_difference: float
    mean_difference: float
    scores: Mapping[str, float] = field(default_factory=dict)
    non_square: int = 0
    by_batch: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    min_agreement: float = MIN_AGREEMENT
    max_accepted: float = MAX_DIFFERENCE
    answers: Mapping[str, object] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether both limits are kept."""
        return self.agreement >= self.min_agreement and self.max_difference <= self.max_accepted

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class Checked:
    """A file that is compared.

    Attributes:
        run: Answers a batch.
        explain: A picture (H, W, 3) uint8 → which layer first differs.
    """

    run: Run
    explain: Callable[[ImageArray], str] = lambda _: "the layer could not be named"


def compare(
    wanted: Mapping[int, Probabilities],
    seen: Mapping[int, Probabilities],
    *,
    pictures: int,
    labels: npt.NDArray[np.int64] | None = None,
    non_square: int = 0,
) -> ParityRecord:
    """Compare probabilities of the network with those of a file, for each batch size.

    Args:
        wanted: Batch size → (M, C) of the network.
        seen: Batch size → (M, C) of the file.
        pictures: How many pictures of the split are among them.
        labels: (pictures,) true classes; with them the answers of batch size 1 are scored.
        non_square: How many of the pictures are not square.
    """
    by_batch = {size: _difference(wanted[size], seen[size]) for size in seen}
    return ParityRecord(
        pictures=pictures,
        batches=tuple(seen),
        agreement=min(d["agreement"] for d in by_batch.values()),
        max_difference=max(d["max_difference"] for d in by_batch.values()),
        mean_difference=max(d["mean_difference"] for d in by_batch.values()),
        scores=score(seen[1][:pictures], labels) if labels is not None else {},
        non_square=non_square,
        by_batch=by_batch,
        answers=answers_document(seen[1][:pictures]) if labels is not None and pictures else {},
    )


def _difference(wanted: Probabilities, seen: Probabilities) -> dict[str, float]:
    difference = np.abs(wanted.astype(np.float64) - seen)
    return {
        "agreement": float((wanted.argmax(1) == seen.argmax(1)).mean()),
        "max_difference": float(np.nan_to_num(difference, nan=1.0).max()),
        "mean_difference": float(np.nan_to_num(difference, nan=1.0).mean()),
    }


def check_parity(
    model: nn.Module,
    exported: bytes,
    *,
    preprocess: Preprocess,
    samples: LearningSamples,
    count: int | None = None,
    until: float | None = None,
) -> ParityRecord:
    """Compare the network (float32, evaluation mode) with an ONNX file of it; see :func:`check_files`."""
    checked = Checked(run_onnx(exported), lambda picture: explain_onnx(model, exported, picture, preprocess))
    found = check_files(model, {"onnx": checked}, preprocess=preprocess, samples=samples, count=count, until=until)
    return found["onnx"]


def check_files(
    model: nn.Module,
    files: Mapping[str, Checked],
    *,
    preprocess: Preprocess,
    samples: LearningSamples,
    count: int | None = None,
    until: float | None = None,
    ungated: Collection[str] = (),
) -> dict[str, ParityRecord]:
    """Compare the network (float32, evaluation mode) with exported files, for batches of 1, 3 and 32.

    Args:
        model: (N, 3, S, S) → logits, in evaluation mode, on the CPU.
        files: Format → the file; every picture is decoded, and answered by the network, once for all of them.
        preprocess: The reference is ``preprocess_tensor``.
        samples: Validation split; original files are read.
        count: How many pictures, the first of the split; None: all.
        until: Unix time after which no further pictures are compared, once there are 64; the record says how many.
        ungated: Names of files that are only measured.

    Returns:
        Format → record.

    Raises:
        StageError: The answers of a file differ by more than is accepted; the figures and the first layer that
            differs are named.
    """
    total = len(samples) if count is None else min(count, len(samples))
    gathered = {name: _Gathered() for name in files}
    pictures, non_square = 0, 0
    worst: dict[str, tuple[float, ImageArray | None]] = dict.fromkeys(files, (0.0, None))
    kept: list[ImageArray] = []
    for chunk in _chunks(samples, total):
        wanted = network_answers(model, chunk, preprocess)
        for name, file in files.items():
            difference = gathered[name].add(file.run, chunk, wanted)
            _keep_worst(worst, name, difference, chunk)
        pictures += len(chunk)
        non_square += sum(p.shape[0] != p.shape[1] for p in chunk)
        kept += chunk[: BATCHES[-1] - len(kept)] if len(kept) < BATCHES[-1] else []
        if until is not None and time.time() > until and pictures >= _AT_LEAST:
            break
    missing = {size for g in gathered.values() for size in BATCHES if size not in g.whole}
    if missing and kept:
        filler = [_one_size(kept, size) for size in sorted(missing)]
        answers = [network_answers(model, batch, preprocess) for batch in filler]
        for batch, wanted in zip(filler, answers, strict=True):
            for name, file in files.items():
                difference = gathered[name].add_batch(file.run, batch, wanted)
                _keep_worst(worst, name, difference, batch)
    labels = samples.labels[:pictures]
    records = {
        name: compare(g.wanted(), g.seen(), pictures=pictures, labels=labels, non_square=non_square)
        for name, g in gathered.items()
    }
    for name, record in records.items():
        if not record.passed and name not in ungated:
            picture = worst[name][1]
            raise _differs(name, record, "" if picture is None else _explained(files[name], picture))
    return records


class _Gathered:
    """Answers of one file and of the network by batch size, in the same order."""

    def __init__(self) -> None:
        self._wanted: dict[int, list[Probabilities]] = {size: [] for size in BATCHES}
        self._seen: dict[int, list[Probabilities]] = {size: [] for size in BATCHES}
        self.whole: set[int] = set()
        """Batch sizes that were filled at least once."""

    def add(self, run: Run, pictures: Sequence[ImageArray], wanted: Probabilities) -> npt.NDArray[np.float64]:
        """Answer pictures of any size by every batch size; return (N,) the largest differences."""
        alone = np.concatenate([run(p[None]) for p in pictures])
        self.whole.add(1)
        worst = self._note(1, wanted, alone)
        groups = group_by_size(pictures)
        for size in BATCHES[1:]:
            rows = alone.copy()
            for group in groups:
                for part in (group[i : i + size] for i in range(0, len(group), size)):
                    if len(part) > 1:
                        rows[part] = run(np.stack([pictures[i] for i in part]))
                    if len(part) == size:
                        self.whole.add(size)
            worst = np.maximum(worst, self._note(size, wanted, rows))
        return worst

    def add_batch(self, run: Run, pictures: Sequence[ImageArray], wanted: Probabilities) -> npt.NDArray[np.float64]:
        """Answer pictures of one size in one call."""
        self.whole.add(len(pictures))
        return self._note(len(pictures), wanted, run(np.stack(pictures)))

    def wanted(self) -> dict[int, Probabilities]:
        """Batch size → (M, C) of the network."""
        return {size: np.concatenate(rows) for size, rows in self._wanted.items()}

    def seen(self) -> dict[int, Probabilities]:
        """Batch size → (M, C) of the file."""
        return {size: np.concatenate(rows) for size, rows in self._seen.items()}

    def _note(self, size: int, wanted: Probabilities, seen: Probabilities) -> npt.NDArray[np.float64]:
        self._wanted[size].append(wanted)
        self._seen[size].append(seen)
        difference: npt.NDArray[np.float64] = np.nan_to_num(np.abs(wanted.astype(np.float64) - seen), nan=1.0)
        largest: npt.NDArray[np.float64] = difference.max(axis=1)
        return largest


def _chunks(samples: LearningSamples, total: int) -> Iterator[list[ImageArray]]:
    """Decoded pictures, 32 at a time; fewer where they are so large that the memory would not be bounded."""
    if not total:
        return
    first = next(iter(decoded(samples, [0])))[1][0]
    chunk = int(np.clip(_CHUNK_BYTES // max(1, first.nbytes), 1, BATCHES[-1]))
    for _, pictures in decoded(samples, range(total), chunk=chunk):
        yield pictures


def _one_size(pictures: Sequence[ImageArray], count: int) -> list[ImageArray]:
    """Fill a batch with pictures that are scaled to one size that is not square; they repeat, mirrored, if need be."""
    side = int(np.clip(min(min(p.shape[:2]) for p in pictures), 8, _FILLER_PX))
    square = [fit_image(p, size=side, fit="stretch")[:, : side - 1] for p in pictures[:count]]
    rows = square + [p[:, ::-1] for p in square]
    return [np.ascontiguousarray(rows[i % len(rows)]) for i in range(count)]


def _keep_worst(
    worst: dict[str, tuple[float, ImageArray | None]],
    name: str,
    difference: npt.NDArray[np.float64],
    pictures: Sequence[ImageArray],
) -> None:
    at = int(difference.argmax())
    if worst[name][1] is None or difference[at] > worst[name][0]:
        worst[name] = (float(difference[at]), pictures[at])


def _explained(file: Checked, picture: ImageArray) -> str:
    try:
        return file.explain(picture)
    except Exception as error:  # the explanation must not hide the error that it explains
        return f"the layer could not be named ({in_short(error, 120)})"


def _differs(name: str, record: ParityRecord, layer: str) -> StageError:
    subject = "exported model" if name == "onnx" else f"model exported to {name}"
    worst = max(record.by_batch, key=lambda size: record.by_batch[size]["max_difference"])
    return StageError(
        f"The {subject} does not answer like the trained one; nothing was delivered.",
        seen=f"agreement {record.agreement:.4f}, largest difference of a probability {record.max_difference:.2g} "
        f"(in batches of {worst}) on {record.pictures} validation pictures; first layer that differs: {layer}",
        accepted=f"agreement from {MIN_AGREEMENT}, difference up to {MAX_DIFFERENCE:g}",
        hint="choose another model with model.name: this one is not exported faithfully",
    )


def network_answers(model: nn.Module, pictures: Sequence[ImageArray], preprocess: Preprocess) -> Probabilities:
    """Return (N, C) probabilities of the network for pictures of any size: the reference."""
    parts = []
    for start in range(0, len(pictures), 16):
        pixels = np.stack([preprocess_tensor(p, preprocess) for p in pictures[start : start + 16]])
        with torch.inference_mode():
            logits = model(torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)).float()
            parts.append(torch.softmax(logits, dim=1).numpy())
    return np.concatenate(parts)


def run_onnx(exported: bytes) -> Run:
    """Open an ONNX model, from uint8 pictures to probabilities."""
    session = open_session(exported)

    def run(batch: Pictures) -> Probabilities:
        answer: Probabilities = session.run([OUTPUT], {INPUT: batch})[0]
        return answer

    return run
