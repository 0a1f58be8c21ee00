"""How sure a difference is: between groups of runs with several seeds, or between two models on the same pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
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
    """Return the difference of two models on the same pictures, with an interval and McNemar's p-value.

    Accuracy: Agresti and Min's interval (2005), which is not of zero width where the answers agree. Macro-F1: a paired
    bootstrap (Efron and Tibshirani, 1993): pictures are drawn with replacement, each with both answers; only how often
    each triple (label, first answer, second answer) occurs matters, so that a multinomial draw replaces the drawing.

    Args:
        labels: (N,) true classes.
        first: (N,) answers of the first model.
        second: (N,) answers of the second model.
        metric: What is compared.
        num_classes: Classes of the task.
        rng: Source of the draws.
        confidence: Of the interval.
        resamples: How many, for macro-F1.
    """
    right_a, right_b = first == labels, second == labels
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    triples, counts = np.unique(np.stack([labels, first, second], axis=1), axis=0, return_counts=True)
    on = f"on the same {len(labels)} test pictures, one training each"
    if metric == "accuracy":
        low, high = _agresti_min(only_a, only_b, len(labels), confidence)
        method = f"Agresti and Min, {on}"
    else:
        draws = rng.multinomial(len(labels), counts / len(labels), size=resamples)
        scores = [_difference(triples, row, num_classes) for row in draws]
        low, high = (float(q) for q in np.quantile(scores, [0.5 - confidence / 2, 0.5 + confidence / 2]))
        method = f"paired bootstrap, {on}"
    value = (only_b - only_a) / len(labels) if metric == "accuracy" else _difference(triples, counts, num_classes)
    return Difference(value, low, high, confidence, method, mcnemar_p(only_a, only_b))


def _agresti_min(only_first: int, only_second: int, total: int, confidence: float) -> tuple[float, float]:
    """Wald's interval of a paired difference after half a picture was added to each cell of the table."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    number, a, b = total + 2.0, only_first + 0.5, only_second + 0.5
    centre = (b - a) / number
    half = z * math.sqrt(max(0.0, a + b - (b - a) ** 2 / number)) / number
    return centre - half, centre + half


def _difference(triples: Labels, counts: Labels, num_classes: int) -> float:
    """Macro-F1 of the second answers minus that of the first."""
    scores = []
    for column in (1, 2):
        matrix = np.zeros((num_classes, num_classes), np.int64)
        np.add.at(matrix, (triples[:, 0], triples[:, column]), counts)
        scores.append(macro_f1(matrix))
    return scores[1] - scores[0]
