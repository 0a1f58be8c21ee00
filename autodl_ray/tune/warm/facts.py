"""Facts of a data set by which two sweeps are compared: decimal logarithms, so that 1 is a factor of ten."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["facts_of"]


def facts_of(labels: NDArray[np.int64], *, num_classes: int, image_size: int) -> dict[str, float]:
    """Return what is known of a data set before anything is trained.

    Args:
        labels: (N,) int64, of the training split.
        num_classes: Of the task; classes without a sample count too.
        image_size: Side of the pictures that the network sees, in pixels.

    Returns:
        ``log_samples``, ``log_classes``, ``log_image_size`` and ``log_imbalance`` (the largest class over an even
        share), each to the base of 10.

    Example:
        >>> facts_of(np.array([0, 0, 0, 1]), num_classes=2, image_size=100)["log_image_size"]
        2.0
    """
    counts = np.bincount(labels, minlength=num_classes)
    even = max(1, len(labels)) / max(1, num_classes)
    return {
        "log_samples": math.log10(max(1, len(labels))),
        "log_classes": math.log10(max(1, num_classes)),
        "log_image_size": math.log10(max(1, image_size)),
        "log_imbalance": math.log10(max(1.0, float(counts.max(initial=0)) / even)),
    }
