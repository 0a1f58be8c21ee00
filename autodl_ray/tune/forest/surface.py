"""A Gaussian process over settings and epochs: what the curves seen so far say of curves not seen.

The covariance of two reports is, after Swersky et al., "Freeze-Thaw Bayesian Optimization" (2014) and Wistuba et al.,
"Supervising the Multi-Fidelity Race of Hyperparameter Configurations" (DyHPO, NeurIPS 2022), the sum of five parts::

    level                             what all settings have in common
    rise    · Kt(t, t')               the common curve
    place   · Kx(x, x')               where a setting ends, at any epoch
    shape   · Kx(x, x') · Kt(t, t')   how its curve differs from the common one
    own     · Ko(t, t') if x is x'    what is peculiar to one trial

with Matérn 5/2 for Kx (one length a column), and exponential kernels over the logarithm of the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Points", "Surface", "fitted"]

Array = NDArray[np.float64]

_LEVEL = 4.0
_JITTER = 1e-6


@dataclass(frozen=True)
class Points:
    """Reports, as the process sees them.

    Attributes:
        x: (N, D) float64, the encoded settings.
        t: (N,) float64, log(epoch) / log(epochs of a whole trial): 0 to 1.
        owner: (N,) int64, the trial of each report; reports of one trial share what is peculiar to it.
    """

    x: Array
    t: Array
    owner: NDArray[np.int64]


@dataclass(frozen=True)
class Surface:
    """A process with its parameters, conditioned on reports.

    Attributes:
        theta: (D + 7,) float64, logarithms: D lengths, then rise, place, shape, own, their two time scales, noise.
        points: What was seen.
        factor: (N, N) float64, the lower Cholesky factor of the covariance of the reports.
        alpha: (N,) float64, the covariance's inverse times the values.
    """

    theta: Array
    points: Points
    factor: Array
    alpha: Array

    def predict(self, asked: Points) -> tuple[Array, Array]:
        """Return mean and standard deviation at ``asked``, (M,) float64 each."""
        from scipy.linalg import solve_triangular

        cross = _covariance(self.theta, asked, self.points)
        mean = cross @ self.alpha
        solved = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)
        rise, place, shape, own = np.exp(self.theta[-7:-3])
        spread = _LEVEL + rise + place + shape + own - np.einsum("nm,nm->m", solved, solved)
        return mean, np.sqrt(np.maximum(spread, 1e-10))


def conditioned(theta: Array, points: Points, values: Array) -> Surface:
    """Condition a process with known parameters on reports; (N,) float64 values of about unit spread."""
    from scipy.linalg import cho_solve, cholesky

    covariance = _covariance(theta, points, points)
    covariance[np.diag_indices_from(covariance)] += np.exp(theta[-1]) + _JITTER
    factor = cholesky(covariance, lower=True, check_finite=False)
    return Surface(theta, points, factor, cho_solve((factor, True), values, check_finite=False))


def prior_theta(width: int) -> Array:
    """Return the parameters that are most likely before anything was seen."""
    lengths = np.full(width, np.log(0.7 * np.sqrt(max(width, 1) / 2)))
    return np.concatenate([lengths, np.log([0.3, 0.5, 0.3, 0.05, 0.5, 0.5, 1e-3])])


def prior_width(width: int) -> Array:
    """Return how far, in logarithms, the parameters are believed to lie from :func:`prior_theta`."""
    return np.concatenate([np.full(width, 0.9), [1.0, 1.0, 1.0, 1.0, 0.6, 0.6, 1.0]])


def fitted(points: Points, values: Array, *, start: Array | None = None, steps: int = 15) -> Array:
    """Return the parameters of greatest posterior density, by L-BFGS from ``start``."""
    from scipy.optimize import minimize

    width = points.x.shape[1]
    centre, spread = prior_theta(width), prior_width(width)
    squares = (points.x[:, None, :] - points.x[None, :, :]) ** 2
    squares = np.ascontiguousarray(squares.transpose(2, 0, 1)).reshape(width, -1)
    gaps = np.abs(points.t[:, None] - points.t[None, :])
    same = points.owner[:, None] == points.owner[None, :]

    def loss(theta: Array) -> tuple[float, Array]:
        value, slope = _likelihood(theta, values, squares, gaps, same)
        away = (theta - centre) / spread
        return value + 0.5 * float(away @ away), slope + away / spread

    begin = centre if start is None else start
    bounds = list(zip(centre - 3 * spread, centre + 3 * spread, strict=True))
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps})
    return np.asarray(found.x, dtype=np.float64)


def _likelihood(theta: Array, values: Array, squares: Array, gaps: Array, same: Array) -> tuple[float, Array]:
    """Return the negative logarithm of the marginal likelihood and its gradient."""
    from scipy.linalg import cho_solve, cholesky
    from scipy.linalg.lapack import dpotri

    n = len(values)
    inverse_squares = np.exp(-2 * theta[:-7])
    rise, place, shape, own = np.exp(theta[-7:-3])
    scale, own_scale = np.exp(theta[-3:-1])
    noise = np.exp(theta[-1])
    s = np.sqrt(5 * (inverse_squares @ squares)).reshape(n, n)
    decay = np.exp(-s)
    kx = (1 + s + s * s / 3) * decay
    kt, ko = np.exp(-gaps / scale), np.exp(-gaps / own_scale) * same
    outer = place + shape * kt
    covariance = _LEVEL + rise * kt + kx * outer + own * ko
    covariance[np.diag_indices(n)] += noise + _JITTER
    factor = cholesky(covariance, lower=True, check_finite=False)
    alpha = cho_solve((factor, True), values, check_finite=False)
    inverse, _ = dpotri(factor, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    w = inverse - np.outer(alpha, alpha)
    value = 0.5 * float(values @ alpha) + float(np.log(np.diag(factor)).sum())
    slope = np.empty_like(theta)
    slope[:-7] = 0.5 * inverse_squares * (squares @ (w * outer * (5 / 3) * (1 + s) * decay).ravel())
    wk, wo = w * kt, w * ko
    slope[-7] = 0.5 * rise * wk.sum()
    slope[-6] = 0.5 * place * (w * kx).sum()
    slope[-5] = 0.5 * shape * (wk * kx).sum()
    slope[-4] = 0.5 * own * wo.sum()
    slope[-3] = 0.5 * ((rise + shape * kx) * wk * gaps).sum() / scale
    slope[-2] = 0.5 * own * (wo * gaps).sum() / own_scale
    slope[-1] = 0.5 * noise * np.trace(w)
    return value, slope


def _covariance(theta: Array, one: Points, other: Points) -> Array:
    lengths = np.exp(theta[:-7])
    rise, place, shape, own = np.exp(theta[-7:-3])
    scale, own_scale = np.exp(theta[-3:-1])
    a, b = one.x / lengths, other.x / lengths
    squared = np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T, 0.0)
    s = np.sqrt(5 * squared)
    kx = (1 + s + s * s / 3) * np.exp(-s)
    gaps = np.abs(one.t[:, None] - other.t[None, :])
    kt = np.exp(-gaps / scale)
    result = _LEVEL + rise * kt + kx * (place + shape * kt)
    same = one.owner[:, None] == other.owner[None, :]
    if same.any():
        result = result + own * np.exp(-gaps / own_scale) * same
    return np.asarray(result)
