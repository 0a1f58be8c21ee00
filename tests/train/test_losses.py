"""The loss: hard and soft targets agree, weights and smoothing do what they say, and slices add up."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from autodl_ray.train.losses import classification_loss


def some(count: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(0)
    return torch.randn(count, classes, generator=made), torch.randint(0, classes, (count,), generator=made)


def test_without_weights_it_is_the_usual_cross_entropy() -> None:
    logits, labels = some()
    for smoothing in (0.0, 0.1):
        wanted = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        assert classification_loss(logits, labels, label_smoothing=smoothing).item() == pytest.approx(wanted.item())


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 1.5, 2.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_hot_rows_give_the_loss_of_their_classes(weights: Tensor | None, smoothing: float) -> None:
    logits, labels = some()
    soft = F.one_hot(labels, 4).float()
    hard_loss = classification_loss(logits, labels, label_smoothing=smoothing, class_weights=weights)
    soft_loss = classification_loss(logits, soft, label_smoothing=smoothing, class_weights=weights)
    assert soft_loss.item() == pytest.approx(hard_loss.item(), rel=1e-6)


def test_a_mixed_target_is_the_mix_of_both_losses() -> None:
    logits, labels = some()
    other = labels.roll(1)
    soft = 0.3 * F.one_hot(labels, 4).float() + 0.7 * F.one_hot(other, 4).float()
    wanted = 0.3 * F.cross_entropy(logits, labels) + 0.7 * F.cross_entropy(logits, other)
    assert classification_loss(logits, soft).item() == pytest.approx(wanted.item())


def test_a_weight_multiplies_the_loss_of_its_class() -> None:
    logits, _ = some(1)
    label = torch.tensor([2])
    plain = classification_loss(logits, label)
    weights = torch.tensor([1.0, 1.0, 3.0, 1.0])
    assert classification_loss(logits, label, class_weights=weights).item() == pytest.approx(3 * plain.item())


def test_the_mean_does_not_depend_on_how_a_batch_is_cut() -> None:
    logits, labels = some(8)
    weights = torch.tensor([0.1, 1.0, 1.5, 2.0])
    whole = classification_loss(logits, labels, label_smoothing=0.1, class_weights=weights)
    halves = [
        classification_loss(logits[part], labels[part], label_smoothing=0.1, class_weights=weights)
        for part in (slice(0, 4), slice(4, 8))
    ]
    assert whole.item() == pytest.approx(sum(half.item() for half in halves) / 2)


def test_a_weight_is_of_the_sample_and_not_of_its_smoothed_part() -> None:
    logits, labels = some()
    weights = torch.tensor([18.0, 0.9, 0.9, 0.9])
    each = F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")
    wanted = (each * weights[labels]).mean()
    made = classification_loss(logits, labels, label_smoothing=0.1, class_weights=weights)
    assert made.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_a_mixed_target_is_the_mix_of_both_weighted_losses() -> None:
    logits, labels = some()
    other = labels.roll(1)
    weights = torch.tensor([0.2, 1.0, 1.5, 2.0])
    soft = 0.3 * F.one_hot(labels, 4).float() + 0.7 * F.one_hot(other, 4).float()
    parts = [classification_loss(logits, y, label_smoothing=0.1, class_weights=weights) for y in (labels, other)]
    made = classification_loss(logits, soft, label_smoothing=0.1, class_weights=weights)
    assert made.item() == pytest.approx((0.3 * parts[0] + 0.7 * parts[1]).item(), rel=1e-6)
