"""The scores against scikit-learn, and the intervals against simulation."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as sk

from autodl_ray.evaluate import metrics
from autodl_ray.evaluate.report import measure
from autodl_ray.tasks.classification import confusion_matrix

Array = npt.NDArray[Any]


def made_up(n: int, classes: int, *, seed: int, skill: float = 2.0) -> tuple[Array, Array]:
    """Probabilities (n, classes) float32 and labels, with mistakes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += skill
    p = np.exp(logits)
    return (p / p.sum(1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_agree_with_scikit_learn(classes: int, seed: int) -> None:
    p, y = made_up(500, classes, seed=seed)
    found = measure(p, y, [f"c{i}" for i in range(classes)], confidence=0.95, resamples=100, rng=rng())
    answer = p.argmax(1)
    assert found.accuracy.value == pytest.approx(sk.accuracy_score(y, answer))
    assert found.macro_f1.value == pytest.approx(sk.f1_score(y, answer, average="macro"))
    assert found.log_loss == pytest.approx(sk.log_loss(y, p, labels=range(classes)), rel=1e-5)
    assert np.array_equal(found.confusion_matrix, sk.confusion_matrix(y, answer))
    precision, recall, f1, support = sk.precision_recall_fscore_support(y, answer, labels=range(classes))
    for i, row in enumerate(found.per_class):
        assert (row.precision, row.recall, row.f1) == pytest.approx((precision[i], recall[i], f1[i]))
        assert row.support == support[i]
    if classes >= 6:
        assert found.top5_accuracy == pytest.approx(sk.top_k_accuracy_score(y, p, k=5))
    else:
        assert found.top5_accuracy is None


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_class_that_is_neither_there_nor_predicted_is_left_out_of_macro_f1() -> None:
    y = np.array([0, 0, 1, 1, 1])
    matrix = confusion_matrix(y, np.array([0, 1, 1, 1, 1]), 4)
    assert metrics.macro_f1(matrix) == pytest.approx(sk.f1_score(y, [0, 1, 1, 1, 1], average="macro"))
    rows = metrics.class_scores(matrix)
    assert (rows[3].f1, rows[3].support, rows[3].predicted) == (0.0, 0, 0)


def test_wilson_known_values() -> None:
    # Newcombe (1998), table I: 81 of 263 and 0 of 20
    assert metrics.wilson_interval(81, 263, confidence=0.95) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert metrics.wilson_interval(0, 20, confidence=0.95) == pytest.approx((0.0, 0.1611), abs=1e-4)
    low, high = metrics.wilson_interval(20, 20, confidence=0.95)
    assert high == 1.0
    assert low == pytest.approx(1 - 0.1611, abs=1e-4)


@pytest.mark.parametrize(("hits", "total"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(hits: int, total: int) -> None:
    with pytest.raises(ValueError, match="need 0 <= hits <= total"):
        metrics.wilson_interval(hits, total, confidence=0.95)


def test_wilson_covers_the_truth() -> None:
    draws = np.random.default_rng(1).binomial(200, 0.93, size=2000)
    inside = [
        low <= 0.93 <= high for low, high in (metrics.wilson_interval(int(k), 200, confidence=0.95) for k in draws)
    ]
    assert 0.93 <= np.mean(inside) <= 0.98


def test_bootstrap_covers_the_true_macro_f1() -> None:
    # test splits of 100 pictures a class, each row of the matrix drawn from known shares
    shares = np.array([[0.9, 0.06, 0.04], [0.1, 0.85, 0.05], [0.02, 0.08, 0.9]])
    truth = metrics.macro_f1(np.rint(shares * 1_000_000).astype(np.int64))
    random = np.random.default_rng(2)
    inside = []
    for _ in range(300):
        matrix = random.multinomial([100, 100, 100], shares).astype(np.int64)
        low, high = metrics.macro_f1_interval(matrix, confidence=0.95, resamples=400, rng=random)
        inside.append(low <= truth <= high)
    assert 0.90 <= np.mean(inside) <= 0.99


def test_bootstrap_equals_drawing_the_pictures_themselves() -> None:
    p, y = made_up(400, 4, seed=5)
    answer = p.argmax(1)
    matrix = confusion_matrix(y, answer, 4)
    low, high = metrics.macro_f1_interval(matrix, confidence=0.95, resamples=4000, rng=rng())
    random, scores = np.random.default_rng(9), []
    places = [np.flatnonzero(y == c) for c in range(4)]
    for _ in range(1500):
        chosen = np.concatenate([random.choice(place, len(place)) for place in places])
        scores.append(metrics.macro_f1(confusion_matrix(y[chosen], answer[chosen], 4)))
    assert (low, high) == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])), abs=0.004)


def test_bootstrap_depends_on_the_seed_alone_and_widens_with_confidence() -> None:
    p, y = made_up(300, 3, seed=3)
    matrix = confusion_matrix(y, p.argmax(1), 3)
    one = metrics.macro_f1_interval(matrix, confidence=0.9, resamples=500, rng=rng())
    assert one == metrics.macro_f1_interval(matrix, confidence=0.9, resamples=500, rng=rng())
    wide = metrics.macro_f1_interval(matrix, confidence=0.99, resamples=500, rng=rng())
    assert wide[0] < one[0] < metrics.macro_f1(matrix) < one[1] < wide[1]


def test_without_mistakes_the_interval_is_not_of_zero_width() -> None:
    low, high = metrics.macro_f1_interval(np.diag([10, 20, 30]), confidence=0.95, resamples=100, rng=rng())
    assert high == 1.0
    assert low == metrics.wilson_interval(60, 60, confidence=0.95)[0] < 0.95


def test_a_thousand_resamples_of_ten_thousand_pictures_take_less_than_a_second() -> None:
    p, y = made_up(10_000, 20, seed=0)
    matrix = confusion_matrix(y, p.argmax(1), 20)
    begin = time.process_time()
    metrics.macro_f1_interval(matrix, confidence=0.95, resamples=1000, rng=rng())
    assert time.process_time() - begin < 1.0


def test_calibration_error_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.35, 0.65]])
    bins = metrics.calibration_bins(p, np.array([0, 1, 0, 1]), bins=10)
    assert [b.count for b in bins] == [0, 0, 0, 0, 0, 1, 1, 0, 2, 0]
    assert bins[8].accuracy == 0.5
    assert metrics.expected_calibration_error(bins) == pytest.approx((2 * 0.4 + 0.4 + 0.35) / 4)


def test_calibration_bins_hold_every_answer_also_at_the_ends() -> None:
    p = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    bins = metrics.calibration_bins(p, np.array([0, 0, 1]))
    assert sum(b.count for b in bins) == 3
    assert bins[-1].count == 2
    assert bins[-1].accuracy == 0.5


def test_calibrated_answers_have_a_small_error() -> None:
    random = np.random.default_rng(0)
    sure = random.uniform(0.5, 1, 50_000)
    labels = (random.uniform(size=50_000) > sure).astype(np.int64)
    p = np.stack([sure, 1 - sure], axis=1)
    assert metrics.expected_calibration_error(metrics.calibration_bins(p, labels)) < 0.01
    wrong = np.stack([np.full(100, 0.99), np.full(100, 0.01)], axis=1)
    assert metrics.expected_calibration_error(metrics.calibration_bins(wrong, np.ones(100, int))) > 0.95


def test_log_loss_of_a_certain_mistake_is_finite() -> None:
    assert metrics.log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(1e-12))


def test_the_baseline_is_the_largest_class_of_the_training_split() -> None:
    p, y = made_up(90, 3, seed=0)
    y = np.array([0] * 20 + [1] * 50 + [2] * 20)
    here = measure(p, y, "abc", confidence=0.95, resamples=100, rng=rng()).baseline
    assert (here.class_name, here.chosen_by, here.accuracy) == ("b", "test", pytest.approx(50 / 90))
    train = measure(p, y, "abc", confidence=0.95, resamples=100, rng=rng(), train_counts=[9, 1, 2]).baseline
    assert (train.class_name, train.chosen_by, train.accuracy) == ("a", "train", pytest.approx(20 / 90))
