"""The kernel: Matérn 5/2 with one length scale a field, a mean and noise; one of scikit-learn's with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

__all__ = ["BOUNDS", "MEAN", "FieldMatern", "matern", "squared_distances"]

Array = NDArray[np.float64]

BOUNDS = {"length_scale": (0.03, 30.0), "noise": (1e-8, 1.0), "variance": (0.05, 20.0)}
MEAN = 1.0
"""Variance of the function's mean, of targets of variance 1."""


class FieldMatern(Kernel):  # type: ignore[misc]  # scikit-learn comes without types
    """Matérn 5/2 over encoded settings, of variance ``variance``, plus ``noise`` on the diagonal.

    The mean of the function is not that of the targets: most of these lie in the good places that a search has found,
    and a process that falls back to their mean expects too much of every corner it has not seen. So the mean is open,
    with a variance of :data:`MEAN` that is added to all covariances, and found with everything else.

    The columns of one field share a length scale, so that a choice of many values is one factor and not many. Two
    values of a choice are as far apart as the ends of a number. ``theta`` is the logarithm of (length scales, noise,
    variance). The predicted spread is that of the function, without the noise of an observation.

    Args:
        groups: (D,) the field of each column.
        length_scale: (F,) one of each field, in units of its range.
        noise: Variance of the noise, of targets of variance 1.
        variance: Of the function, in the same units.
    """

    def __init__(
        self, groups: Any = (0,), length_scale: Any = (0.5,), noise: float = 1e-3, variance: float = 1.0
    ) -> None:
        self.groups = groups
        self.length_scale = length_scale
        self.noise = noise
        self.variance = variance

    @property
    def hyperparameter_length_scale(self) -> Any:
        """The length scales."""
        return Hyperparameter("length_scale", "numeric", BOUNDS["length_scale"], len(np.atleast_1d(self.length_scale)))

    @property
    def hyperparameter_noise(self) -> Any:
        """The noise."""
        return Hyperparameter("noise", "numeric", BOUNDS["noise"])

    @property
    def hyperparameter_variance(self) -> Any:
        """The variance."""
        return Hyperparameter("variance", "numeric", BOUNDS["variance"])

    def __call__(self, X: Array, Y: Array | None = None, eval_gradient: bool = False) -> Any:
        """Return the covariances, and their gradient by ``theta`` (N, N, F + 2) where that is asked for."""
        scales, groups = np.atleast_1d(self.length_scale).astype(float), np.asarray(self.groups)
        if Y is not None:
            return MEAN + self.variance * matern(squared_distances(X, Y, scales[groups]))[0]
        parts = _parts(X, groups, scales)
        values, slopes = matern(parts.sum(axis=2))
        covariances = MEAN + self.variance * values
        covariances[np.diag_indices_from(covariances)] += self.noise
        if not eval_gradient:
            return covariances
        gradient = np.empty((len(X), len(X), len(scales) + 2))
        gradient[:, :, :-2] = (-2.0 * self.variance * slopes)[:, :, None] * parts  # d(d²)/d(log scale) = -2 d²
        gradient[:, :, -2] = self.noise * np.eye(len(X))
        gradient[:, :, -1] = self.variance * values
        return covariances, gradient

    def diag(self, X: Array) -> Array:
        """Return the variance at each point, without noise."""
        return np.full(len(X), MEAN + float(self.variance))

    def is_stationary(self) -> bool:
        """It is."""
        return True


def matern(squared: Array) -> tuple[Array, Array]:
    """Return Matérn 5/2 and its slope, both by the squared distance."""
    root = np.sqrt(5.0 * np.maximum(squared, 0.0))
    decay = np.exp(-root)
    return (1.0 + root + root**2 / 3.0) * decay, -(5.0 / 6.0) * (1.0 + root) * decay


def squared_distances(one: Array, other: Array, scales: Array) -> Array:
    """Return the squared distances of points (N, D) and (M, D) in units of the scales: (N, M)."""
    left, right = one / scales, other / scales
    squared = (left**2).sum(1)[:, None] + (right**2).sum(1)[None, :] - 2.0 * left @ right.T
    return np.asarray(np.maximum(squared, 0.0))


def _parts(points: Array, groups: NDArray[np.intp], scales: Array) -> Array:
    """Return what each field adds to the squared distances: (N, N, F)."""
    parts = np.zeros((len(points), len(points), len(scales)))
    for column, group in enumerate(groups):
        parts[:, :, group] += (points[:, None, column] - points[None, :, column]) ** 2
    return parts / scales**2
