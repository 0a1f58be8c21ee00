"""Weights of classes and samples, the decision to use them, and the order of a weighted epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_ray.artifacts import BoxTable, TestSamples, TrainSamples, ValSamples
from autodl_ray.data.sampling import (
    class_counts,
    class_weights,
    decide_balance,
    describe_balance,
    sample_weights,
)
from autodl_ray.data.stream.order import Plan, augment_seed, weighted_draw
from autodl_ray.errors import DatasetError, InputError
from autodl_ray.seeding import rng_for


def samples(labels: Sequence[int], *, kind: type[Any] = TrainSamples, boxes: BoxTable | None = None) -> Any:
    count, classes = len(labels), ("car", "cat", "dog", "none")
    names = tuple(f"{i}.png" for i in range(count))
    return kind(Path("photos"), np.arange(count), names, np.array(labels, dtype=np.int64), classes, None, boxes)


def box_table(*pictures: Sequence[int]) -> BoxTable:
    """The classes of the boxes of each picture."""
    count = sum(len(p) for p in pictures)
    return BoxTable(
        coords=np.tile(np.array([[0, 0, 4, 4]], dtype=np.float32), (count, 1)),
        labels=np.array([y for p in pictures for y in p], dtype=np.int64),
        starts=np.cumsum([0, *(len(p) for p in pictures)]).astype(np.int64),
        difficult=np.zeros(count, dtype=np.bool_),
        crowd=np.zeros(count, dtype=np.bool_),
    )


# -- weights


@given(counts=st.lists(st.integers(0, 500), min_size=1, max_size=8), beta=st.sampled_from([None, 0.9, 0.999]))
def test_the_mean_over_the_samples_is_1_and_rare_classes_weigh_more(counts: list[int], beta: float | None) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    weights = class_weights(labels, len(counts), beta=beta)
    assert weights.dtype == np.float64
    assert weights.shape == (len(counts),)
    if sum(counts):
        assert weights[labels].mean() == pytest.approx(1)
    for i, a in enumerate(counts):
        assert (weights[i] == 0) == (a == 0)
        assert all(weights[i] > weights[j] for j, b in enumerate(counts) if 0 < a < b and (beta is None or b < 50))


def test_every_class_weighs_the_same_in_all() -> None:
    labels = np.repeat(np.arange(3), [200, 10, 1])
    weights = class_weights(labels, 3)
    assert np.allclose(np.bincount(labels, weights=weights[labels]), 211 / 3)


def test_the_effective_number_evens_out_less() -> None:
    labels = np.repeat(np.arange(2), [2000, 100])
    plain, softer, near = (class_weights(labels, 2, beta=b) for b in (None, 0.99, 0.999999))
    assert plain[1] / plain[0] == pytest.approx(20)
    assert softer[1] / softer[0] == pytest.approx((1 - 0.99**2000) / (1 - 0.99**100))
    assert near[1] / near[0] == pytest.approx(20, rel=0.01)
    with pytest.raises(InputError, match="effective number"):
        class_weights(labels, 2, beta=1.0)


def test_samples_weigh_as_their_class() -> None:
    weights = sample_weights(samples([0, 0, 0, 1, 3, 3]))
    assert np.allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2, 1, 1])
    assert class_counts(samples([0, 0, 0, 1, 3, 3])).tolist() == [3, 1, 0, 2]


def test_a_picture_with_boxes_weighs_as_its_rarest_class() -> None:
    boxes = box_table([0, 0, 0], [0, 1], [0], [0], [], [2, 2, 0])
    train = samples([-1] * 6, boxes=boxes)
    assert class_counts(train).tolist() == [5, 1, 1, 0]
    weights = sample_weights(train)
    assert weights.mean() == pytest.approx(1)
    assert np.allclose(weights / weights[0], [1, 5, 1, 1, 1, 5])


@pytest.mark.parametrize("kind", [ValSamples, TestSamples])
def test_only_the_training_split_is_balanced(kind: type[Any]) -> None:
    for function in (sample_weights, class_counts):
        with pytest.raises(DatasetError, match="Only the training split is balanced") as caught:
            function(samples([0, 1], kind=kind))
        assert kind.__name__ in str(caught.value)


# -- the decision


@pytest.mark.parametrize(
    ("balance", "counts", "way", "reason"),
    [
        ("auto", [100, 20], "weights", "5 times the pictures of the smallest, at least 5"),
        ("auto", [99, 20], "none", "4.95 times the pictures of the smallest, less than 5"),
        ("auto", [99, 0, 50], "none", "1.98 times"),
        ("auto", [99, 0], "none", "one class"),
        ("none", [1000, 1], "none", "as the spec says"),
        ("sampler", [10, 10], "sampler", "as the spec says"),
        ("weights", [10, 10], "weights", "as the spec says"),
    ],
)
def test_auto_acts_from_five_times_on(balance: Any, counts: list[int], way: str, reason: str) -> None:
    decision = decide_balance(balance, counts)
    assert decision.way == way
    assert reason in decision.reason


def test_what_is_said() -> None:
    names, counts = [f"c{i:02d}" for i in range(20)], [1000, *range(40, 21, -1)]
    decision = decide_balance("sampler", counts)
    line = describe_balance(decision, names, counts)
    assert line.startswith("balance sampler: as the spec says; c19 ")
    assert line.endswith("… 8 more, the last c00 0.0795 times as often")
    assert "\n" not in line
    assert describe_balance(decide_balance("none", counts), names, counts) == "balance none: as the spec says"


# -- the draw


@given(counts=st.lists(st.integers(1, 60), min_size=2, max_size=5, unique=True), seed=st.integers(0, 1000))
def test_each_sample_and_each_class_comes_as_often_as_expected(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    weights = class_weights(labels, len(counts))[labels]
    drawn = weighted_draw(weights, rng=rng_for(seed, "draw"))
    assert len(drawn) == len(labels)
    times = np.bincount(drawn, minlength=len(labels))
    assert (np.abs(times - weights) < 1 + 1e-9).all()
    by_class = np.bincount(labels[drawn], minlength=len(counts))
    assert (np.abs(by_class - len(labels) / len(counts)) < 1 + 1e-9).all()


def test_over_epochs_the_mean_is_the_weight() -> None:
    labels = np.repeat(np.arange(3), [60, 20, 7])
    weights = class_weights(labels, 3)[labels]
    epochs = [np.bincount(weighted_draw(weights, rng=rng_for(0, e)), minlength=87) for e in range(2000)]
    assert np.allclose(np.mean(epochs, axis=0), weights, atol=0.05)


@given(n=st.integers(1, 300), seed=st.integers(0, 1000))
def test_equal_weights_give_every_sample_once(n: int, seed: int) -> None:
    assert sorted(weighted_draw(np.full(n, 0.37), rng=rng_for(seed, "draw"))) == list(range(n))


def test_a_weight_of_0_is_never_drawn() -> None:
    weights = np.array([0.0, 1.0, 0.0, 3.0])
    assert {int(i) for e in range(200) for i in weighted_draw(weights, rng=rng_for(0, e))} == {1, 3}


def weighted_plan(n: int, batch: int, rank: int = 0, world: int = 1) -> Plan:
    return Plan(n, batch, 5, rank, world, weights=np.where(np.arange(n) % 10 == 0, 9.0, 1.0))


@given(n=st.integers(1, 200), batch=st.integers(1, 40), world=st.integers(1, 5), epoch=st.integers(0, 3))
def test_the_ranks_together_are_the_weighted_epoch(n: int, batch: int, world: int, epoch: int) -> None:
    batch = max(batch, world)
    single = list(weighted_plan(n, batch).slices(epoch))
    assert sum(len(part.positions) for part in single) == n
    ranks = [list(weighted_plan(n, batch, rank, world).slices(epoch)) for rank in range(world)]
    assert {len(parts) for parts in ranks} == {len(single)}
    for field in (0, 1):
        whole = np.concatenate([part[field] for part in single])
        together = np.concatenate([parts[step][field] for step in range(len(single)) for parts in ranks])
        assert np.array_equal(together[:n], whole)
        assert len(together) == n or batch < 2 * world - 1 or n < world


@given(first=st.integers(0, 12))
def test_going_on_within_a_weighted_epoch(first: int) -> None:
    whole = [tuple(map(tuple, part)) for part in weighted_plan(100, 8).slices(1)]
    assert [tuple(map(tuple, part)) for part in weighted_plan(100, 8).slices(1, first)] == whole[first:]


def test_epochs_differ_and_occurrences_count() -> None:
    plan = weighted_plan(100, 16)
    orders = [plan.order(epoch) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    seen: Counter[int] = Counter()
    for part in plan.slices(0):
        for position, occurrence in zip(part.positions.tolist(), part.occurrences.tolist(), strict=True):
            assert occurrence == seen[position]
            seen[position] += 1
    assert max(seen.values()) >= 4


def test_without_weights_nothing_changes() -> None:
    assert np.array_equal(Plan(50, 8, 3).order(2), rng_for(3, "order", 2).permutation(50))
    assert all((part.occurrences == 0).all() for part in Plan(50, 8, 3).slices(2))
    assert augment_seed(1, epoch=2, sample_id=3) == augment_seed(1, epoch=2, sample_id=3, occurrence=0)
    assert len({augment_seed(1, epoch=2, sample_id=3, occurrence=k) for k in range(5)}) == 5


@pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0, float("nan")], [1.0], [0.0, 0.0]])
def test_weights_that_are_none(weights: list[float]) -> None:
    with pytest.raises(InputError, match="no weights for the samples") as caught:
        Plan(2, 1, 0, weights=np.array(weights))
    assert "for 2 samples" in str(caught.value)
