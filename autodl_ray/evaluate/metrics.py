"""The scores of a classifier and their intervals, from probabilities or from the confusion matrix alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = [
    "CALIBRATION_BINS",
    "ClassScore",
    "ConfidenceBin",
    "calibration_bins",
    "class_scores",
    "expected_calibration_error",
    "log_loss",
    "macro_f1",
    "macro_f1_interval",
    "top_k_accuracy",
    "wilson_interval",
]

CALIBRATION_BINS = 15
"""Equal-width bins of the probability of the predicted class, as in Guo et al., "On Calibration of Modern Neural
Networks", 2017."""

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class ClassScore:
    """How well one class is found.

    Attributes:
        precision: Of the answers with this class, the share that is right; 0.0 when there is none.
        recall: Of the pictures of this class, the share that is found; 0.0 when there is none.
        f1: Harmonic mean of the two; 0.0 when the class is neither there nor predicted.
        support: Pictures of this class.
        predicted: Answers with this class.
    """

    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


@dataclass(frozen=True)
class ConfidenceBin:
    """The answers whose probability lies in (low, high]; the first bin holds 0.0 too.

    Attributes:
        count: How many there are.
        confidence: Their mean probability; 0.0 when there is none.
        accuracy: The share of them that is right; 0.0 when there is none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def wilson_interval(hits: int, total: int, *, confidence: float) -> tuple[float, float]:
    """Return Wilson's score interval of a share (Wilson, 1927); it stays in [0, 1] and is never of zero width.

    Example:
        >>> low, high = wilson_interval(90, 100, confidence=0.95)
        >>> round(low, 3), round(high, 3)
        (0.826, 0.945)
    """
    if total < 1 or not 0 <= hits <= total:
        raise ValueError(f"need 0 <= hits <= total and total >= 1, got {hits} of {total}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = hits / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def class_scores(matrix: Counts) -> list[ClassScore]:
    """Return the score of each class from the (C, C) confusion matrix (rows: true, columns: predicted)."""
    hits, support, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    rows = zip(precision, recall, f1, support, predicted, strict=True)
    return [ClassScore(float(p), float(r), float(f), int(s), int(n)) for p, r, f, s, n in rows]


def macro_f1(matrix: Counts) -> float:
    """Return the mean F1 over the classes that occur in the labels or in the answers."""
    return float(_macro_f1(np.diag(matrix), matrix.sum(axis=1) + matrix.sum(axis=0)))


def macro_f1_interval(
    matrix: Counts, *, confidence: float, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the percentile interval of macro-F1 over stratified bootstrap resamples.

    The pictures of each class are drawn with replacement, as many as there are. Only the counts matter, so that
    one multinomial draw for each row of the matrix replaces the drawing of pictures. A matrix without mistakes has
    nothing to resample: its lower end is that of Wilson's interval of the accuracy.

    Args:
        matrix: (C, C) counts; rows: true, columns: predicted.
        confidence: Of the interval, e.g. 0.95.
        resamples: How many.
        rng: Source of the draws.
    """
    total, num_classes = int(matrix.sum()), len(matrix)
    if total == int(np.trace(matrix)):
        return wilson_interval(total, total, confidence=confidence)[0], 1.0
    hits = np.zeros((resamples, num_classes), np.int64)
    predicted = np.zeros((resamples, num_classes), np.int64)
    support = matrix.sum(axis=1)
    for true in np.flatnonzero(support):
        columns = np.flatnonzero(matrix[true])
        draws = rng.multinomial(support[true], matrix[true, columns] / support[true], size=resamples)
        predicted[:, columns] += draws
        if matrix[true, true]:
            hits[:, true] = draws[:, np.searchsorted(columns, true)]
    scores = _macro_f1(hits, predicted + support)
    low, high = np.quantile(scores, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _macro_f1(hits: npt.NDArray[np.int64], seen: npt.NDArray[np.int64]) -> Floats:
    """Mean of 2 · hits / seen over the classes (last axis) that were seen at all (support + predicted > 0)."""
    f1 = 2.0 * hits / np.maximum(seen, 1)
    mean: Floats = f1.sum(axis=-1) / np.maximum((seen > 0).sum(axis=-1), 1)
    return mean


def top_k_accuracy(probabilities: Floats, labels: Counts, k: int) -> float:
    """Return the share of rows of (N, C) ``probabilities`` whose true class is among the ``k`` likeliest."""
    likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((likeliest == labels[:, None]).any(axis=1).mean())


def log_loss(probabilities: Floats, labels: Counts) -> float:
    """Return the mean cross-entropy in nats; probabilities below 1e-12 count as 1e-12."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(chosen, 1e-12, 1.0)).mean())


def calibration_bins(probabilities: Floats, labels: Counts, *, bins: int = CALIBRATION_BINS) -> list[ConfidenceBin]:
    """Sort the answers into equal-width bins of the probability of the predicted class."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    mean_confidence = np.bincount(place, weights=confidence, minlength=bins) / np.maximum(count, 1)
    accuracy = np.bincount(place, weights=right, minlength=bins) / np.maximum(count, 1)
    return [
        ConfidenceBin(i / bins, (i + 1) / bins, int(count[i]), float(mean_confidence[i]), float(accuracy[i]))
        for i in range(bins)
    ]


def expected_calibration_error(bins: Sequence[ConfidenceBin]) -> float:
    """Return the mean distance of confidence and accuracy over the bins, weighted by their counts."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / max(total, 1)
