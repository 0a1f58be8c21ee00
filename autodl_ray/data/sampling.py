"""What to do about unequal classes: weights for the loss, or weights of a sampler; on training samples alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts import TrainSamples
from autodl_ray.errors import DatasetError, InputError

__all__ = [
    "IMBALANCED_FROM",
    "Balance",
    "BalanceWay",
    "class_counts",
    "class_weights",
    "decide_balance",
    "describe_balance",
    "sample_weights",
]

BalanceWay = Literal["none", "weights", "sampler"]

IMBALANCED_FROM = 5.0
"""``auto`` acts where the largest class has this many times the pictures of the smallest."""

_MOST_SHOWN = 12


@dataclass(frozen=True)
class Balance:
    """What is done about unequal classes, and why.

    Attributes:
        way: ``none``, ``weights`` (in the loss) or ``sampler`` (rare classes are drawn more often).
        reason: For the user, without a full stop.
    """

    way: BalanceWay
    reason: str


def class_counts(train: TrainSamples) -> npt.NDArray[np.int64]:
    """Return how many pictures show each class: (C,) int64. A picture with boxes counts once for each class in it.

    Raises:
        DatasetError: It is not the training split.
    """
    _check_kind(train)
    num_classes = len(train.classes)
    if train.boxes is None:
        return np.bincount(train.labels[train.labels >= 0], minlength=num_classes).astype(np.int64)
    pictures, labels = _shown(train)
    return np.bincount(labels[_first_of_pairs(pictures, labels, num_classes)], minlength=num_classes).astype(np.int64)


def class_weights(
    labels: npt.NDArray[np.int64], num_classes: int, *, beta: float | None = None
) -> npt.NDArray[np.float64]:
    """Return a weight for each class, larger for rarer ones, whose mean over the samples is 1.

    Args:
        labels: (N,) int64 in [0, C), of the training split; negative ones (no label) are passed over.
        num_classes: C.
        beta: None: the inverse of the class's count. In (0, 1): the inverse of its effective number of samples,
            (1 - βⁿ) / (1 - β), which evens out less (Cui et al., Class-Balanced Loss, 2019; usual: 0.99 to 0.9999).

    Returns:
        (C,) float64; 0 for a class without samples.

    Raises:
        InputError: ``beta`` is not between 0 and 1.

    Example:
        >>> class_weights(np.array([0, 0, 0, 1]), 2).round(3).tolist()
        [0.667, 2.0]
    """
    return _weights_of(np.bincount(labels[labels >= 0], minlength=num_classes), beta)


def sample_weights(train: TrainSamples, *, beta: float | None = None) -> npt.NDArray[np.float64]:
    """Return how often each training sample is to be drawn, relative to the mean of 1: (N,) float64.

    A sample has the weight of its class; a picture with boxes that of the rarest class in it, and a picture without
    any the smallest weight there is (as repeat factors in Gupta et al., LVIS, 2019).

    Raises:
        DatasetError: It is not the training split: validation and test are never sampled.
    """
    by_class = _weights_of(class_counts(train), beta)
    least = float(by_class[by_class > 0].min(initial=1.0))
    weights = np.full(len(train), least)
    if train.boxes is None:
        labelled = train.labels >= 0
        weights[labelled] = by_class[train.labels[labelled]]
    else:
        pictures, labels = _shown(train)
        np.maximum.at(weights, pictures, by_class[labels])
    return weights / weights.mean() if len(weights) else weights


def decide_balance(balance: Literal["none", "weights", "sampler", "auto"], counts: Sequence[int]) -> Balance:
    """Decide what ``data.balance`` means for these classes.

    Args:
        balance: As the spec has it.
        counts: Training pictures of each class.

    Example:
        >>> decide_balance("auto", [200, 10]).way
        'weights'
        >>> decide_balance("auto", [20, 10]).way
        'none'
    """
    present = [int(count) for count in counts if count > 0]
    if balance != "auto":
        return Balance(balance, "as the spec says")
    if len(present) < 2:
        return Balance("none", "there is one class")
    ratio = max(present) / min(present)
    said = f"the largest class has {ratio:.3g} times the pictures of the smallest"
    if ratio < IMBALANCED_FROM:
        return Balance("none", f"{said}, less than {IMBALANCED_FROM:g}")
    return Balance("weights", f"{said}, at least {IMBALANCED_FROM:g}")


def describe_balance(balance: Balance, classes: Sequence[str], counts: Sequence[int]) -> str:
    """Say in one line what is done, with the weight of each class; the rarest first.

    Example:
        >>> describe_balance(decide_balance("auto", [190, 10]), ["cat", "dog"], [190, 10])
        'balance weights: the largest class has 19 times the pictures of the smallest, at least 5; dog 10, cat 0.526'
    """
    said = f"balance {balance.way}: {balance.reason}"
    if balance.way == "none":
        return said
    weights = _weights_of(np.asarray(counts, dtype=np.int64), None)
    order = [int(i) for i in np.argsort(-weights, kind="stable") if counts[int(i)] > 0]
    shown = [f"{classes[i]} {weights[i]:.3g}" for i in order[:_MOST_SHOWN]]
    if len(order) > _MOST_SHOWN:
        shown.append(f"… {len(order) - _MOST_SHOWN} more, the last {classes[order[-1]]} {weights[order[-1]]:.3g}")
    each = " times as often" if balance.way == "sampler" else ""
    return f"{said}; {', '.join(shown)}{each}"


def _weights_of(counts: npt.NDArray[np.int64], beta: float | None) -> npt.NDArray[np.float64]:
    if beta is not None and not 0 < beta < 1:
        raise InputError("The base of the effective number is not usable.", seen=beta, accepted="between 0 and 1")
    present = counts > 0
    amount = counts.astype(np.float64)
    if beta is not None:
        amount = -np.expm1(amount * np.log(beta)) / (1 - beta)
    weights = np.zeros(len(counts))
    weights[present] = 1 / amount[present]
    total = float((weights * counts).sum())
    return weights * (counts.sum() / total) if total > 0 else weights


def _shown(train: TrainSamples) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the picture (position) and the class of every box."""
    assert train.boxes is not None
    return np.repeat(np.arange(len(train)), np.diff(train.boxes.starts)), train.boxes.labels


def _first_of_pairs(
    pictures: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], num_classes: int
) -> npt.NDArray[np.int64]:
    rows: npt.NDArray[np.int64] = np.unique(pictures * num_classes + labels, return_index=True)[1]
    return rows


def _check_kind(train: TrainSamples) -> None:
    if not isinstance(train, TrainSamples):
        raise DatasetError(
            "Only the training split is balanced.", seen=type(train).__name__, accepted=TrainSamples.__name__
        )
