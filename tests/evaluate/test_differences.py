"""Intervals of differences: against worked values, by coverage, and where there is nothing to see."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from autodl_ray.evaluate.differences import mcnemar_p, mean_interval, paired_difference, welch_difference


def test_welchs_interval_is_scipys() -> None:
    first, second = [0.90, 0.91, 0.93, 0.92], [0.95, 0.94, 0.99]
    found = welch_difference(first, second)
    theirs = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert found.value == pytest.approx(np.mean(second) - np.mean(first))


def test_equal_seeds_have_an_interval_of_no_width_and_one_seed_has_none() -> None:
    assert welch_difference([0.5, 0.5], [0.75, 0.75]).low == 0.25
    with pytest.raises(ValueError, match="two values a group, got 1 and 2"):
        welch_difference([0.5], [0.5, 0.6])
    with pytest.raises(ValueError, match="at least two values"):
        mean_interval([0.5])


def test_the_mean_has_students_interval() -> None:
    values = [0.90, 0.92, 0.94, 0.93]
    mean, low, high = mean_interval(values, confidence=0.9)
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert (mean, low, high) == pytest.approx((np.mean(values), theirs.low, theirs.high))


def test_mcnemars_test_is_the_exact_one() -> None:
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(0, 10) == pytest.approx(2 * 0.5**10)
    assert mcnemar_p(5, 5) == pytest.approx(1.0)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_interval_covers_the_true_difference(metric: str) -> None:
    rng = np.random.default_rng(0)
    covered, width = 0, []
    for _ in range(60):
        labels = rng.integers(3, size=200)
        first = np.where(rng.random(200) < 0.8, labels, (labels + 1) % 3)
        second = np.where(rng.random(200) < 0.9, labels, (labels + 1) % 3)
        found = paired_difference(
            labels, first, second, metric=metric, num_classes=3, rng=rng, resamples=200  # type: ignore[arg-type]
        )  # fmt: skip
        covered += found.low <= 0.1 <= found.high
        width.append(found.high - found.low)
    assert 51 <= covered <= 60  # 95 % of 60 is 57
    assert 0.08 < np.mean(width) < 0.2


def test_pairs_are_kept_together() -> None:
    """The same mistakes in both models say nothing of their difference: pairing makes the interval narrow."""
    rng = np.random.default_rng(1)
    labels = rng.integers(2, size=400)
    first = np.where(rng.random(400) < 0.7, labels, 1 - labels)
    second = first.copy()
    second[:8] = labels[:8]
    found = paired_difference(labels, first, second, metric="accuracy", num_classes=2, rng=rng)
    assert found.high - found.low < 0.03
