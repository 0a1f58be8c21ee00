"""Whether the exported file answers like the network it came from, on original files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from autodl_ray.artifacts import ValSamples
from autodl_ray.errors import StageError
from autodl_ray.export.graph import INPUT, OUTPUT
from autodl_ray.export.pictures import decoded
from autodl_ray.images import ImageArray, Preprocess
from autodl_ray.models.predictor import group_by_size, open_session
from autodl_ray.models.preprocess import preprocess_tensor
from autodl_ray.tasks.classification import score

__all__ = ["MAX_DIFFERENCE", "MIN_AGREEMENT", "ParityRecord", "check_parity", "compare"]

MIN_AGREEMENT = 0.995
MAX_DIFFERENCE = 1e-3
_BATCH = 16
_AT_LEAST = 64

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ParityRecord:
    """The exported file against the network.

    Attributes:
        pictures: How many pictures of the validation split were compared.
        batches: Sizes of the batches given to the exported file.
        agreement: Share of equal top-1 classes, the worse of the batch sizes.
        max_difference: Largest difference of a probability.
        mean_difference: Mean difference of the probabilities.
        scores: Of the exported file on the compared pictures: ``accuracy``, ``macro_f1``, ``loss``.
        min_agreement: Least accepted agreement.
        max_accepted: Largest accepted difference.
    """

    pictures: int
    batches: tuple[int, ...]
    agreement: float
    max_difference: float
    mean_difference: float
    scores: Mapping[str, float] = field(default_factory=dict)
    min_agreement: float = MIN_AGREEMENT
    max_accepted: float = MAX_DIFFERENCE

    @property
    def passed(self) -> bool:
        """Whether both limits are kept."""
        return self.agreement >= self.min_agreement and self.max_difference <= self.max_accepted

    def to_json(self) -> dict[str, object]:
        """Return the content of ``parity.json``."""
        return {**asdict(self), "passed": self.passed}


def compare(
    wanted: Probabilities,
    seen: Sequence[Probabilities],
    *,
    batches: tuple[int, ...],
    labels: npt.NDArray[np.int64] | None = None,
) -> ParityRecord:
    """Compare the network's probabilities (N, C) with those of the exported file for each batch size.

    With the true ``labels`` (N,) the exported file (of the first batch size) is scored as well.
    """
    differences = [np.abs(wanted.astype(np.float64) - s) for s in seen]
    return ParityRecord(
        pictures=len(wanted),
        batches=batches,
        agreement=min(float((wanted.argmax(1) == s.argmax(1)).mean()) for s in seen),
        max_difference=float(max(d.max() for d in differences)),
        mean_difference=float(max(d.mean() for d in differences)),
        scores=score(seen[0], labels) if labels is not None else {},
    )


def check_parity(
    model: nn.Module,
    exported: bytes,
    *,
    preprocess: Preprocess,
    samples: ValSamples,
    count: int | None = None,
    until: float | None = None,
) -> ParityRecord:
    """Compare the network (float32, evaluation mode) with the exported file, alone and in batches.

    Args:
        model: (N, 3, S, S) → logits, in evaluation mode, on the CPU.
        exported: The ONNX file, from uint8 pictures to probabilities.
        preprocess: The reference is ``preprocess_tensor``.
        samples: Validation split; original files are read.
        count: How many pictures, the first of the split; None: all.
        until: Unix time after which no further pictures are compared, once there are 64; the record says how many.

    Raises:
        StageError: The answers differ by more than is accepted; the figures are named.
    """
    session = open_session(exported)
    total = len(samples) if count is None else min(count, len(samples))
    wanted, alone, together = [], [], []
    for _, pictures in decoded(samples, range(total), chunk=_BATCH):
        wanted.append(_of_network(model, pictures, preprocess))
        alone.append(np.concatenate([_of_file(session, p[None]) for p in pictures]))
        together.append(_in_batches(session, pictures))
        if until is not None and time.time() > until and len(wanted) * _BATCH >= _AT_LEAST:
            break
    answers = np.concatenate(wanted)
    record = compare(
        answers,
        [np.concatenate(alone), np.concatenate(together)],
        batches=(1, min(_BATCH, total)),
        labels=samples.labels[: len(answers)],
    )
    if not record.passed:
        raise StageError(
            "The exported model does not answer like the trained one; no candidate was written.",
            seen=f"agreement {record.agreement:.4f}, largest difference of a probability {record.max_difference:.2g} "
            f"on {record.pictures} validation pictures",
            accepted=f"agreement from {MIN_AGREEMENT}, difference up to {MAX_DIFFERENCE:g}",
            hint="choose another model with model.name: this one is not exported faithfully",
        )
    return record


def _of_network(model: nn.Module, pictures: Sequence[ImageArray], preprocess: Preprocess) -> Probabilities:
    pixels = torch.from_numpy(np.stack([preprocess_tensor(p, preprocess) for p in pictures]))
    with torch.inference_mode():
        logits = model(pixels.contiguous(memory_format=torch.channels_last)).float()
        probabilities: Probabilities = torch.softmax(logits, dim=1).numpy()
    return probabilities


def _of_file(session: object, batch: npt.NDArray[np.uint8]) -> Probabilities:
    answer: Probabilities = session.run([OUTPUT], {INPUT: batch})[0]  # type: ignore[attr-defined]
    return answer


def _in_batches(session: object, pictures: Sequence[ImageArray]) -> Probabilities:
    parts = group_by_size(pictures)
    rows = np.concatenate([_of_file(session, np.stack([pictures[i] for i in part])) for part in parts])
    return rows[np.argsort(np.concatenate(parts))]
