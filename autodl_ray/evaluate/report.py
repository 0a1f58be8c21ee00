"""What was measured on the sealed test split: the document behind report.json, with stable keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from autodl_ray.evaluate import metrics
from autodl_ray.evaluate.judge import Unreadable
from autodl_ray.tasks.classification import confusion_matrix, score

__all__ = [
    "Baseline",
    "CalibrationBin",
    "ClassRow",
    "ConfusedPair",
    "EvaluationReport",
    "Interval",
    "Scores",
    "SkippedPicture",
    "VariantRow",
    "measure",
    "skipped_rows",
]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Record):
    """A score with its interval."""

    value: float
    low: float
    high: float
    method: str = Field(description="how the interval was made")


class Baseline(_Record):
    """What always answering the largest class would score."""

    class_name: str
    accuracy: float
    chosen_by: Literal["train", "test"] = Field(description="the split in which the class is the largest")


class ClassRow(_Record):
    """Scores of one class; they recompute from the confusion matrix."""

    class_name: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


class ConfusedPair(_Record):
    """One class taken for another."""

    true: str
    predicted: str
    count: int
    share: float = Field(description="of the pictures of the true class")


class CalibrationBin(_Record):
    """Answers by the probability of the predicted class, in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


class SkippedPicture(_Record):
    """A test picture that could not be read."""

    path: str
    reason: str


class VariantRow(_Record):
    """Another file of the same model (INT8), judged on the same pictures."""

    name: str
    accuracy: float
    macro_f1: float
    log_loss: float
    same_answer: float = Field(description="share of the pictures with the same answer as the judged file")
    images_per_s: float = Field(description="prediction alone, decoding left out")


class Scores(_Record):
    """Everything that follows from probabilities and labels alone."""

    num_images: int
    num_right: int
    accuracy: Interval
    macro_f1: Interval
    top5_accuracy: float | None = Field(description="null with fewer than 6 classes")
    log_loss: float = Field(description="mean cross-entropy, nats")
    expected_calibration_error: float = Field(description="15 equal-width bins of the predicted class's probability")
    baseline: Baseline
    classes: tuple[str, ...]
    confusion_matrix: tuple[tuple[int, ...], ...] = Field(description="rows: true, columns: predicted")
    per_class: tuple[ClassRow, ...]
    most_confused: tuple[ConfusedPair, ...] = Field(description="at most 20, most frequent first")
    calibration: tuple[CalibrationBin, ...]


class EvaluationReport(_Record):
    """The content of report.json. Keys are only added within a schema version."""

    schema_version: Literal[1] = 1
    split: Literal["test"] = "test"
    created: str = Field(description="ISO 8601, UTC")
    confidence: float = Field(description="of the intervals")
    scores: Scores
    images_per_s: float = Field(description="prediction alone, decoding left out")
    seconds: float = Field(description="of the evaluation, decoding included")
    skipped: tuple[SkippedPicture, ...] = Field(description="test pictures that could not be read; not judged")
    variants: tuple[VariantRow, ...] = Field(description="other files of the same model on the same pictures")
    model: dict[str, Any]
    dataset: dict[str, Any]
    int8: dict[str, Any] | None = Field(description="the export's decision and its measurements")
    leaderboard: tuple[dict[str, Any], ...]
    curves: tuple[dict[str, Any], ...] = Field(description="of the training run, one row an epoch")
    openings: tuple[dict[str, Any], ...] = Field(description="who opened the test split, when and what for")
    made: dict[str, Any] = Field(description="seed, spec digest, versions and the like")
    search: dict[str, Any] = Field({}, description="trials of the sweep, importance, repeats and limits")

    def to_json(self) -> str:
        """Return the document as indented JSON."""
        return self.model_dump_json(indent=1) + "\n"


def measure(
    probabilities: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    *,
    confidence: float,
    resamples: int,
    rng: np.random.Generator,
    train_counts: Sequence[int] | None = None,
) -> Scores:
    """Score (N, C) ``probabilities`` against (N,) ``labels``.

    Args:
        probabilities: (N, C) rows that sum to 1.
        labels: (N,) int64 in [0, C).
        classes: C names.
        confidence: Of the intervals.
        resamples: For the interval of macro-F1.
        rng: Source of the resamples.
        train_counts: Pictures a class in the training split, for the baseline; else the test split decides.
    """
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, len(classes))
    base = score(probabilities, labels)
    right = int(np.trace(matrix))
    bins = metrics.calibration_bins(probabilities, labels)
    low, high = metrics.wilson_interval(right, len(labels), confidence=confidence)
    f1_low, f1_high = metrics.macro_f1_interval(matrix, confidence=confidence, resamples=resamples, rng=rng)
    perfect = right == len(labels)
    f1_method = "Wilson (no mistakes to resample)" if perfect else f"stratified bootstrap, {resamples} resamples"
    per_class = zip(classes, metrics.class_scores(matrix), strict=True)
    return Scores(
        num_images=len(labels),
        num_right=right,
        accuracy=Interval(value=base["accuracy"], low=low, high=high, method="Wilson"),
        macro_f1=Interval(value=base["macro_f1"], low=f1_low, high=f1_high, method=f1_method),
        top5_accuracy=metrics.top_k_accuracy(probabilities, labels, 5) if len(classes) >= 6 else None,
        log_loss=base["loss"],
        expected_calibration_error=metrics.expected_calibration_error(bins),
        baseline=_baseline(matrix, classes, train_counts),
        classes=tuple(classes),
        confusion_matrix=tuple(tuple(int(n) for n in row) for row in matrix),
        per_class=tuple(ClassRow(class_name=name, **vars(row)) for name, row in per_class),
        most_confused=_most_confused(matrix, classes),
        calibration=tuple(CalibrationBin(**vars(b)) for b in bins),
    )


def skipped_rows(unreadable: Sequence[Unreadable]) -> tuple[SkippedPicture, ...]:
    """Return the unreadable pictures as rows of the report."""
    return tuple(SkippedPicture(path=u.path, reason=u.reason) for u in unreadable)


def _baseline(matrix: npt.NDArray[np.int64], classes: Sequence[str], train_counts: Sequence[int] | None) -> Baseline:
    support = matrix.sum(axis=1)
    largest = int(np.argmax(support if train_counts is None else np.asarray(train_counts)))
    return Baseline(
        class_name=classes[largest],
        accuracy=float(support[largest] / support.sum()),
        chosen_by="test" if train_counts is None else "train",
    )


def _most_confused(matrix: npt.NDArray[np.int64], classes: Sequence[str], limit: int = 20) -> tuple[ConfusedPair, ...]:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    support = matrix.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(cell), len(classes)) for cell in order]
    return tuple(
        ConfusedPair(
            true=classes[t], predicted=classes[p], count=int(wrong[t, p]), share=float(wrong[t, p] / support[t])
        )
        for t, p in pairs
        if wrong[t, p]
    )
