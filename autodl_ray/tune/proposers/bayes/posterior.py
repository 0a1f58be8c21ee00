"""What a fitted Gaussian process says of new points, with the gradient that a local search needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodl_ray.tune.proposers.bayes.kernel import MEAN, matern, squared_distances

__all__ = ["Posterior"]

Array = NDArray[np.float64]

_LEAST = 1e-12


class Posterior:
    """The posterior of a fitted regressor of scikit-learn, in units of its standardised targets.

    Points that are being tried are added with the mean that is expected of them (a believer's lie): what is known
    there no longer draws others to the same place. Source: D. Ginsbourger et al., Kriging is well-suited to
    parallelize optimization (2010).

    Args:
        regressor: Fitted, with a :class:`FieldMatern` kernel.
        pending: (M, D) points that are being tried.

    Attributes:
        best: The highest mean at a known point.
    """

    def __init__(self, regressor: Any, pending: Array) -> None:
        kernel = regressor.kernel_
        self._variance = float(kernel.variance)
        self._scales = np.atleast_1d(kernel.length_scale).astype(float)[np.asarray(kernel.groups)]
        noise = float(kernel.noise)
        known: Array = regressor.X_train_
        targets: Array = regressor.y_train_
        extra = np.broadcast_to(np.asarray(regressor.alpha, dtype=float), (len(known),))
        self._solve(known, targets, noise + extra)
        means = self.mean(known)
        self.best = float(means.max())
        if len(pending):
            lies = self.mean(pending)
            points = np.concatenate([known, pending])
            diagonal = np.concatenate([noise + extra, np.full(len(pending), noise + _LEAST)])
            self._solve(points, np.concatenate([targets, lies]), diagonal)

    def mean(self, points: Array) -> Array:
        """Return the mean at points (N, D): (N,)."""
        return self._covariances(points)[0] @ self._alpha

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation at points (N, D): (N,) each."""
        covariances, _ = self._covariances(points)
        solved = self._inverse_root @ covariances.T
        variance = MEAN + self._variance - (solved**2).sum(axis=0)
        return covariances @ self._alpha, np.sqrt(np.maximum(variance, _LEAST))

    def gradient(self, point: Array) -> tuple[float, float, Array, Array]:
        """Return mean, deviation and their gradients at one point (D,): two numbers and two (D,)."""
        covariances, slopes = self._covariances(point[None])
        row = covariances[0]
        moved = 2.0 * slopes[0][:, None] * (point[None] - self._points) / self._scales**2
        weights = self._inverse_root.T @ (self._inverse_root @ row)
        deviation = float(np.sqrt(max(MEAN + self._variance - row @ weights, _LEAST)))
        return float(row @ self._alpha), deviation, moved.T @ self._alpha, -(moved.T @ weights) / deviation

    def _covariances(self, points: Array) -> tuple[Array, Array]:
        values, slopes = matern(squared_distances(points, self._points, self._scales))
        return MEAN + self._variance * values, self._variance * slopes

    def _solve(self, points: Array, targets: Array, diagonal: Array) -> None:
        from scipy.linalg import cholesky, solve_triangular

        self._points = points
        covariances = self._covariances(points)[0]
        covariances[np.diag_indices_from(covariances)] += diagonal
        root = cholesky(covariances, lower=True)
        self._inverse_root: Array = solve_triangular(root, np.eye(len(points)), lower=True)
        self._alpha: Array = self._inverse_root.T @ (self._inverse_root @ targets)
