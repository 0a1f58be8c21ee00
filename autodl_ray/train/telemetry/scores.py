"""What the validation's probabilities say beyond accuracy: top-k and the recall of every class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_LISTED", "class_recall", "epoch_scores", "top_k_accuracy"]

MAX_LISTED = 100
"""With more classes than this, an epoch's row holds the summary of the recalls only."""


def top_k_accuracy(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], k: int = 5) -> float:
    """Return the share of rows of (N, C) whose label (N,) is among the k = min(k, C) likeliest (ties: optimistic)."""
    k = min(k, probabilities.shape[1])
    own = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities > own[:, None]).sum(axis=1) < k).mean())


def class_recall(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the recall of each of the C classes; NaN for a class without a sample."""
    classes = probabilities.shape[1]
    right = labels[probabilities.argmax(axis=1) == labels]
    support = np.bincount(labels, minlength=classes)
    hits = np.bincount(right, minlength=classes)
    return np.where(support > 0, hits / np.maximum(support, 1), np.nan)


def epoch_scores(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> dict[str, object]:
    """Return ``top5``, ``balanced_accuracy`` (mean recall), ``recall_min`` and ``recall`` (a list, None: no sample).

    Args:
        probabilities: (N, C) rows that sum to 1.
        labels: (N,) int64 in [0, C).

    Returns:
        Rounded to 6 digits; {} without a sample.
    """
    if len(labels) == 0:
        return {}
    recall = class_recall(probabilities, labels)
    known = recall[~np.isnan(recall)]
    return {
        "top5": round(top_k_accuracy(probabilities, labels), 6),
        "balanced_accuracy": round(float(known.mean()), 6),
        "recall_min": round(float(known.min()), 6),
        "recall": [None if r != r else round(float(r), 6) for r in recall],
    }
