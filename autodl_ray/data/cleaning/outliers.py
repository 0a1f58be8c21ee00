"""Pictures unlike all others: far from their nearest neighbours in feature space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from autodl_ray.data.cleaning.findings import Finding, finding
from autodl_ray.data.cleaning.subject import Subject

__all__ = ["find_outliers"]

_RANGES = 1.7


def find_outliers(
    subject: Subject, positions: Sequence[int], distances: npt.NDArray[np.float64], *, features: str
) -> Iterator[Finding]:
    """Yield pictures whose mean distance to their 10 nearest neighbours is out of line.

    The measure and the limit are those of cleanlab's Datalab (Kuan and Mueller, 2022): past the upper quartile by
    1.7 interquartile ranges. The neighbours are known here already; cleanlab would search them again.

    Args:
        subject: The data set.
        positions: N records.
        distances: (N,) mean distances.
        features: In what they were measured.
    """
    if len(distances) < 20:
        return
    lower, middle, upper = np.percentile(distances, [25, 50, 75])
    spread = float(upper - lower)
    limit = float(upper) + _RANGES * spread
    far = np.flatnonzero(distances > limit)
    for row in far[np.argsort(-distances[far], kind="stable")].tolist():
        i = positions[row]
        over = (float(distances[row]) - limit) / max(spread, 1e-12)
        said = f"It is {distances[row] / middle:.1f} times as far from its nearest pictures as usual ({features})."
        sure = min(1.0, 0.5 + 0.25 * over)
        yield finding("outlier", [subject.listing.records[i].path], said, sure=sure, splits=subject.splits_of([i]))
