"""What is particular to classification: its scores, and how probabilities become an answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["confusion_matrix", "score", "top_k"]


def confusion_matrix(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], num_classes: int
) -> npt.NDArray[np.int64]:
    """Count how often each class was taken for each other.

    Args:
        labels: (N,) true classes.
        predicted: (N,) predicted classes.
        num_classes: C.

    Returns:
        (C, C) int64; row = true class, column = predicted class.
    """
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes * num_classes)
    return cells.reshape(num_classes, num_classes).astype(np.int64)


def score(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Score predictions.

    Args:
        probabilities: (N, C) rows that sum to 1.
        labels: (N,) int64 in [0, C).

    Returns:
        ``accuracy``; ``macro_f1``, the mean F1 over the classes that occur in the labels or the predictions
        (as scikit-learn's ``f1_score(average="macro")``); ``loss``, the mean cross-entropy in nats.
    """
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, probabilities.shape[1])
    hits, support = np.diag(matrix), matrix.sum(axis=1) + matrix.sum(axis=0)
    f1 = 2 * hits[support > 0] / support[support > 0]
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(f1.mean()),
        "loss": float(-np.log(np.clip(chosen, 1e-12, 1.0)).mean()),
    }


def top_k(probabilities: npt.NDArray[np.floating], classes: Sequence[str], k: int) -> list[dict[str, object]]:
    """Turn one row of probabilities (C,) into the ``k`` likeliest classes, most likely first."""
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [{"class": classes[i], "probability": round(float(probabilities[i]), 6)} for i in order]
