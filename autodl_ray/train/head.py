"""The quick model's head: multinomial logistic regression on frozen features, its strength searched on validation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts import write_atomic
from autodl_ray.errors import BundleError, InputError
from autodl_ray.seeding import rng_for
from autodl_ray.tasks.classification import score

if TYPE_CHECKING:
    from torch import Tensor

    from autodl_ray.models.classifier import Classifier

__all__ = ["L2_GRID", "HeadFit", "fit_head", "load_head", "save_head"]

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

L2_GRID = tuple(float(v) for v in np.logspace(0, -5, 11))
"""Strengths that are tried, from strong to weak; each starts from the solution of the one before."""

_MAX_SEARCH_VALUES = 20_000_000  # of the feature matrix that the search looks at; more rows wait for the last fit
_MAX_ITERATIONS = 100
_PROBED_ROWS = 512
_ONE_THREAD_BELOW = 4_000_000
"""Values of a feature matrix below which one thread is used: Ray starts beside the fit, and two threads wait for each
other while another process has a core (1,766 × 1,280 features, 6 classes, busy machine: 4.2 s with two, 0.7 with one;
1,400 × 64: 13 and 1.1 s)."""


@dataclass(frozen=True)
class HeadFit:
    """A fitted head for raw features: logits = features · weightᵀ + bias.

    Attributes:
        weight: (C, D) float32.
        bias: (C,) float32.
        l2: The chosen strength: the loss is mean cross-entropy + l2 / 2 · ‖standardised weight‖².
        scores: ``accuracy``, ``macro_f1`` and ``loss`` on validation.
        rows: For each strength that was tried: ``l2``, the scores, ``seconds``.
    """

    weight: Array
    bias: Array
    l2: float
    scores: dict[str, float]
    rows: tuple[dict[str, float], ...]

    def put_into(self, model: Classifier) -> None:
        """Make it the head of ``model``.

        Raises:
            InputError: The model has another number of classes or features.
        """
        import torch

        from autodl_ray.models.classifier import set_head

        set_head(model, torch.from_numpy(self.weight), torch.from_numpy(self.bias))


def fit_head(
    features: Array,
    labels: Labels,
    val_features: Array,
    val_labels: Labels,
    *,
    num_classes: int,
    seed: int,
    class_weights: tuple[float, ...] | None = None,
) -> HeadFit:
    """Fit the head on training features, with the L2 strength that does best on validation.

    Best is the lowest validation loss (with the class weights, where there are some): with a few hundred samples it is
    far less noisy than accuracy, and it keeps the logits at a scale that fine-tuning can start from.

    Args:
        features: (N, D) float32 of the training split.
        labels: (N,) int64 in [0, C).
        val_features: (M, D) float32.
        val_labels: (M,) int64.
        num_classes: C.
        seed: Draws the rows of the search where there are very many.
        class_weights: C factors of the loss, by class, 1 on average over the training samples; None: all count alike.

    Raises:
        InputError: The shapes do not agree or there are no samples.
    """
    from autodl_ray.train.threads import torch_threads

    _check(features, labels, val_features, val_labels)
    with torch_threads(1 if features.size < _ONE_THREAD_BELOW else None):
        return _fit(
            features, labels, val_features, val_labels, num_classes=num_classes, seed=seed, class_weights=class_weights
        )


def _fit(
    features: Array,
    labels: Labels,
    val_features: Array,
    val_labels: Labels,
    *,
    num_classes: int,
    seed: int,
    class_weights: tuple[float, ...] | None,
) -> HeadFit:
    columns = _distinct_columns(features)
    mean, scale = features.mean(axis=0), _inverse_std(features)
    rows_used = _search_rows(features, columns, seed)
    x, y = columns.standardised(features[rows_used], mean, scale), labels[rows_used]
    val = columns.standardised(val_features, mean, scale)
    theta = np.zeros((len(columns.first) + 1, num_classes), dtype=np.float64)
    by_class = np.ones(num_classes) if class_weights is None else np.array(class_weights)
    tried: list[_Tried] = []
    for l2 in L2_GRID:
        began = time.perf_counter()
        theta = _minimise(x, y, by_class[y], l2=l2 * len(features) / len(x), start=theta)
        probabilities = _softmax(_logits(val, theta))
        row = {"l2": l2, **score(probabilities, val_labels), "seconds": time.perf_counter() - began}
        tried.append(_Tried(_weighted_loss(probabilities, val_labels, by_class), row, theta))
        if _is_overfitting([one.loss for one in tried]):
            break
    _, row, theta = min(tried, key=lambda one: one.loss)
    if len(x) < len(features):
        x = columns.standardised(features, mean, scale)
        theta = _minimise(x, labels, by_class[labels], l2=row["l2"], start=theta)
    weight = (columns.spread(theta[:-1]) * scale[:, None]).T.astype(np.float32)
    bias = (theta[-1] - _product(weight.astype(np.float64), mean.astype(np.float64))).astype(np.float32)
    scores = score(_softmax(_product(val_features, weight.T) + bias), val_labels)
    return HeadFit(np.ascontiguousarray(weight), bias, row["l2"], scores, tuple(one.row for one in tried))


def save_head(fit: HeadFit, path: Path) -> None:
    """Write weight (C, D) and bias (C,) as safetensors, atomically."""
    from safetensors.numpy import save

    write_atomic(path, save({"weight": fit.weight, "bias": fit.bias}))


def load_head(path: Path) -> tuple[Tensor, Tensor]:
    """Read the weight and the bias that :func:`save_head` wrote.

    Raises:
        BundleError: The file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        return tensors["weight"], tensors["bias"]
    except (OSError, KeyError, SafetensorError) as error:
        raise BundleError("The head cannot be read.", seen=f"{path}: {error}", hint="fit it again") from error


def _check(features: Array, labels: Labels, val_features: Array, val_labels: Labels) -> None:
    shapes = f"train {features.shape} and {labels.shape}, val {val_features.shape} and {val_labels.shape}"
    if len(features) == 0 or len(val_features) == 0:
        raise InputError("There are no samples to fit a head on.", seen=shapes)
    if (
        len(features) != len(labels)
        or len(val_features) != len(val_labels)
        or features.shape[1] != val_features.shape[1]
    ):
        raise InputError(
            "Features and labels do not belong together.", seen=shapes, accepted="(N, D), (N,), (M, D), (M,)"
        )


def _inverse_std(features: Array) -> Array:
    std = features.std(axis=0)
    return np.where(std > 1e-6 * max(float(std.max(initial=0)), 1e-12), 1 / np.maximum(std, 1e-12), 0).astype(
        np.float32
    )


class _Columns(NamedTuple):
    """The distinct features: a grey picture has every pixel three times, and three equal weights are one.

    The smallest weights that k equal columns can share are w / k each, with the penalty w² / k: that is one column,
    √k times as long. So the solution is the same, in a third of the time.

    Attributes:
        first: (U,) a column of each kind, in order.
        kind: (D,) which of them each column equals.
        root: (U,) float32, the square root of how many there are.
    """

    first: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int64]
    root: Array

    def standardised(self, features: Array, mean: Array, scale: Array) -> Array:
        """Return (N, U) of (N, D)."""
        if len(self.first) == features.shape[1]:
            return np.asarray((features - mean) * scale, dtype=np.float32)
        made = (features[:, self.first] - mean[self.first]) * (scale[self.first] * self.root)
        return np.ascontiguousarray(made, dtype=np.float32)

    def spread(self, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the weights (D, C) of all columns from those (U, C) of the distinct ones."""
        shared: npt.NDArray[np.float64] = (weight / self.root[:, None])[self.kind]
        return shared


def _distinct_columns(features: Array) -> _Columns:
    """Find equal columns, some rows at a time: kinds are split until all are alone, or the rows end."""
    width = features.shape[1]
    kind, kinds = np.zeros(width, dtype=np.int64), 1
    for start in range(0, len(features), _PROBED_ROWS):
        part = np.ascontiguousarray(features[start : start + _PROBED_ROWS].T)
        seen: dict[tuple[int, bytes], int] = {}
        pairs = zip(kind.tolist(), part, strict=True)
        kind = np.array([seen.setdefault((of, column.tobytes()), len(seen)) for of, column in pairs], dtype=np.int64)
        kinds = len(seen)
        if kinds == width:
            break
    first = np.zeros(kinds, dtype=np.int64)
    first[kind[::-1]] = np.arange(width)[::-1]
    return _Columns(first, kind, np.sqrt(np.bincount(kind)).astype(np.float32))


def _search_rows(features: Array, columns: _Columns, seed: int) -> npt.NDArray[np.int64] | slice:
    most = max(1000, _MAX_SEARCH_VALUES // len(columns.first))
    if len(features) <= most:
        return slice(None)
    return np.sort(rng_for(seed, "head rows").permutation(len(features))[:most])


def _logits(x: Array, theta: npt.NDArray[np.float64]) -> Array:
    logits: Array = _product(x, theta[:-1].astype(np.float32)) + theta[-1].astype(np.float32)
    return logits


def _product(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Multiply matrices with torch's BLAS.

    numpy's OpenBLAS ends its threads when any thread of the process forks, and a product that is under way then
    waits for ever (seen with py-spy): Ray starts its processes in another thread just while the head is fitted.
    """
    import torch

    product: npt.NDArray[Any] = (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()
    return product


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return result


class _Tried(NamedTuple):
    """A strength: the validation loss that it is chosen by, what is told of it, and its solution."""

    loss: float
    row: dict[str, float]
    theta: npt.NDArray[np.float64]


def _weighted_loss(probabilities: Array, labels: Labels, by_class: npt.NDArray[np.float64]) -> float:
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    weights = by_class[labels]
    return float(-(weights * np.log(np.clip(chosen, 1e-12, 1.0))).sum() / max(weights.sum(), 1e-12))


def _minimise(
    x: Array, y: Labels, weights: npt.NDArray[np.float64], *, l2: float, start: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Minimise the mean of weight · cross-entropy + l2 / 2 · ‖weight‖² by L-BFGS.

    theta is (D + 1, C), the bias last, not shrunk.
    """
    from scipy.optimize import minimize

    rows, shares = np.arange(len(y)), (weights / len(y)).astype(np.float32)

    def objective(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        theta = flat.reshape(start.shape)
        probabilities = _softmax(_logits(x, theta))
        loss = -(shares * np.log(np.maximum(probabilities[rows, y], 1e-30))).sum(dtype=np.float64)
        probabilities[rows, y] -= 1
        probabilities *= shares[:, None]
        gradient = np.empty_like(theta)
        gradient[:-1] = _product(probabilities.T, x).T + l2 * theta[:-1]
        gradient[-1] = probabilities.sum(axis=0)
        return float(loss + 0.5 * l2 * np.square(theta[:-1]).sum()), gradient.ravel()

    options = {"maxiter": _MAX_ITERATIONS, "ftol": 1e-6, "gtol": 1e-5}
    result: Any = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    solution: npt.NDArray[np.float64] = result.x.reshape(start.shape)
    return solution


def _is_overfitting(losses: list[float]) -> bool:
    """Whether the last two strengths were both clearly worse than the best: weaker ones will not be better."""
    return len(losses) > 3 and min(losses[-2:]) > 1.1 * min(losses)
