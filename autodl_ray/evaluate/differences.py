"""How sure a difference is: between groups of runs with several seeds, or between two models on the same pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from autodl_ray.evaluate.metrics import macro_f1

__all__ = ["Difference", "mcnemar_p", "mean_interval", "paired_difference", "welch_difference"]

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Difference:
    """A difference with its interval.

    Attributes:
        value: The second minus the first.
        low: Lower end of the interval.
        high: Upper end of the interval.
        confidence: Of the interval, e.g. 0.95.
        method: How the interval was made.
        p_value: Of McNemar's test that both are right equally often; None where it was not made.
    """

    value: float
    low: float
    high: float
    confidence: float
    method: str
    p_value: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, Any]:
        """Return the difference as plain data."""
        return {**asdict(self), "is_clear": self.is_clear}


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return mean, low and high of Student's t interval of the mean.

    Raises:
        ValueError: There are fewer than two values.

    Example:
        >>> mean, low, high = mean_interval([0.90, 0.92, 0.94])
        >>> round(mean, 3), round(low, 3), round(high, 3)
        (0.92, 0.87, 0.97)
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, got {len(values)}")
    from scipy.stats import t

    data = np.asarray(values, np.float64)
    half = float(t.ppf(0.5 + confidence / 2, len(data) - 1)) * float(data.std(ddof=1)) / math.sqrt(len(data))
    mean = float(data.mean())
    return mean, mean - half, mean + half


def welch_difference(first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95) -> Difference:
    """Return the difference of two means with Welch's t interval (Welch, 1947): the spreads may differ.

    Args:
        first: A score a seed, at least two.
        second: A score a seed, at least two.
        confidence: Of the interval.

    Raises:
        ValueError: One of the groups has fewer than two values.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"Welch's interval needs two values a group, got {len(first)} and {len(second)}")
    from scipy.stats import t

    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    parts = [float(x.var(ddof=1)) / len(x) for x in (a, b)]
    value, error = float(b.mean() - a.mean()), math.sqrt(sum(parts))
    method = f"Welch's t over seeds ({len(a)} and {len(b)})"
    if error == 0.0:
        return Difference(value, value, value, confidence, method)
    freedom = sum(parts) ** 2 / sum(p * p / (len(x) - 1) for p, x in zip(parts, (a, b), strict=True))
    half = float(t.ppf(0.5 + confidence / 2, freedom)) * error
    return Difference(value, value - half, value + half, confidence, method)


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (McNemar, 1947).

    Args:
        only_first: Pictures that only the first model has right.
        only_second: Pictures that only the second model has right.
    """
    if only_first + only_second == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def paired_difference(
    labels: Labels,
    first: Labels,
    second: Labels,
    *,
    metric: Literal["accuracy", "macro_f1"],
    num_classes: int,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Difference:
    """Return the difference of two models on the same pictures, with a paired bootstrap interval.

    Pictures are drawn with replacement, each with both answers (Efron and Tibshirani, 1993). Only how often each triple
    (label, first answer, second answer) occurs matters, so that a multinomial draw of the triples replaces it.

    Args:
        labels: (N,) true classes.
        first: (N,) answers of the first model.
        second: (N,) answers of the second model.
        metric: What is compared.
        num_classes: Classes of the task.
        rng: Source of the draws.
        confidence: Of the interval.
        resamples: How many.
    """
    triples, counts = np.unique(np.stack([labels, first, second], axis=1), axis=0, return_counts=True)
    draws = rng.multinomial(len(labels), counts / len(labels), size=resamples)
    scores = [_difference(triples, row, metric, num_classes) for row in draws]
    low, high = np.quantile(scores, [0.5 - confidence / 2, 0.5 + confidence / 2])
    right_a, right_b = first == labels, second == labels
    return Difference(
        value=_difference(triples, counts, metric, num_classes),
        low=float(low),
        high=float(high),
        confidence=confidence,
        method=f"paired bootstrap on the same {len(labels)} test pictures (one training each)",
        p_value=mcnemar_p(int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())),
    )


def _difference(triples: Labels, counts: Labels, metric: str, num_classes: int) -> float:
    scores = []
    for column in (1, 2):
        if metric == "accuracy":
            scores.append(float(counts[triples[:, column] == triples[:, 0]].sum()) / float(counts.sum()))
        else:
            matrix = np.zeros((num_classes, num_classes), np.int64)
            np.add.at(matrix, (triples[:, 0], triples[:, column]), counts)
            scores.append(macro_f1(matrix))
    return scores[1] - scores[0]
