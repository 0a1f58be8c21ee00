"""A Gaussian process over settings and epochs: what the curves seen so far say of curves not seen.

The covariance of two reports is, after Swersky et al., "Freeze-Thaw Bayesian Optimization" (2014) and Wistuba et al.,
"Supervising the Multi-Fidelity Race of Hyperparameter Configurations" (DyHPO, NeurIPS 2022), the sum of six parts::

    level                             what all settings have in common
    rise    · Kt(t, t')               the common curve
    place   · Kx(x, x')               where a setting ends, at any epoch
    shape   · Kx(x, x') · Kt(t, t')   how its curve differs from the common one
    own     · Ko(t, t') if x is x'    what is peculiar to one trial
    trust   · <m(x,t), m(x',t')> / S  what S earlier sweeps say, each with a weight that is learned

with Matérn 5/2 for Kx (one length a column), and Matérn 3/2 over the logarithm of the epoch for the others: curves are
smooth, so that a trend goes on for a while.
The mean is that of the earlier sweeps (0 without any).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Points", "Surface", "conditioned", "fitted"]

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
        told: (N, S) float64, what S earlier sweeps say of each.
    """

    x: Array
    t: Array
    owner: NDArray[np.int64]
    told: Array

    @property
    def mean(self) -> Array:
        """What earlier sweeps say on average, (N,) float64."""
        return np.asarray(self.told.mean(1) if self.told.shape[1] else np.zeros(len(self.t)))

    def take(self, rows: NDArray[np.int64]) -> Points:
        """Return some of the reports."""
        return Points(self.x[rows], self.t[rows], self.owner[rows], self.told[rows])

    def with_more(self, more: Points) -> Points:
        """Return these reports and more of them."""
        return Points(
            np.concatenate([self.x, more.x]),
            np.concatenate([self.t, more.t]),
            np.concatenate([self.owner, more.owner]),
            np.concatenate([self.told, more.told]),
        )


@dataclass(frozen=True)
class Surface:
    """A process with its parameters, conditioned on reports.

    Attributes:
        theta: (D + 8,) float64, logarithms: D lengths, then rise, place, shape, own, two time scales, trust, noise.
        points: What was seen.
        factor: (N, N) float64, the lower Cholesky factor of the covariance of the reports.
        alpha: (N,) float64, the covariance's inverse times what the values differ from the mean.
    """

    theta: Array
    points: Points
    factor: Array
    alpha: Array

    def predict(self, asked: Points) -> tuple[Array, Array]:
        """Return mean and standard deviation at ``asked``, (M,) float64 each."""
        from scipy.linalg import solve_triangular

        cross = _covariance(self.theta, asked, self.points)
        mean = asked.mean + cross @ self.alpha
        solved = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)
        before = _LEVEL + np.exp(self.theta[-8:-4]).sum() + np.exp(self.theta[-2]) * _squares(asked.told)
        spread = before - np.einsum("nm,nm->m", solved, solved)
        return mean, np.sqrt(np.maximum(spread, 1e-10))

    def mean(self, asked: Points) -> Array:
        """Return the mean alone, (M,) float64: a tenth of the work."""
        return np.asarray(asked.mean + _covariance(self.theta, asked, self.points) @ self.alpha)


def conditioned(theta: Array, points: Points, values: Array) -> Surface:
    """Condition a process with known parameters on reports; (N,) float64 values of about unit spread."""
    from scipy.linalg import cho_solve, cholesky

    covariance = _covariance(theta, points, points)
    covariance[np.diag_indices_from(covariance)] += np.exp(theta[-1]) + _JITTER
    factor = cholesky(covariance, lower=True, check_finite=False)
    return Surface(theta, points, factor, cho_solve((factor, True), values - points.mean, check_finite=False))


def _prior_theta(width: int) -> Array:
    """Return the parameters that are most likely before anything was seen."""
    lengths = np.full(width, np.log(0.7 * np.sqrt(max(width, 1) / 2)))
    return np.concatenate([lengths, np.log([0.3, 0.5, 0.3, 0.05, 0.5, 0.5, 0.3, 1e-3])])


def _prior_width(width: int) -> Array:
    """Return how far, in logarithms, the parameters are believed to lie from :func:`_prior_theta`."""
    return np.concatenate([np.full(width, 0.9), [1.0, 1.0, 1.0, 1.0, 0.6, 0.6, 1.0, 1.0]])


def fitted(points: Points, values: Array, *, steps: int) -> Array:
    """Return the parameters of greatest posterior density, by L-BFGS from those of the greatest prior.

    The last few answers are kept: a proposer and a scheduler of one sweep ask the same.
    """
    shape = (len(values), points.x.shape[1], points.told.shape[1])
    parts = (points.x, points.t, points.owner, points.told, values)
    return np.frombuffer(_fitted(shape, tuple(np.ascontiguousarray(part).tobytes() for part in parts), steps))


@lru_cache(maxsize=8)
def _fitted(shape: tuple[int, int, int], parts: tuple[bytes, ...], steps: int) -> bytes:
    from scipy.optimize import minimize

    n, width, sweeps = shape
    x, t, told, values = (np.frombuffer(parts[i]) for i in (0, 1, 3, 4))
    owner = np.frombuffer(parts[2], dtype=np.int64)
    points = Points(x.reshape(n, width), t, owner, told.reshape(n, sweeps))
    centre, spread = _prior_theta(width), _prior_width(width)
    pairs = _Pairs.of(points)
    rest = values - points.mean

    def loss(theta: Array) -> tuple[float, Array]:
        value, slope = _likelihood(theta, rest, pairs)
        away = (theta - centre) / spread
        return value + 0.5 * float(away @ away), slope + away / spread

    bounds = list(zip(centre - 3 * spread, centre + 3 * spread, strict=True))
    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps})
    return np.asarray(found.x, dtype=np.float64).tobytes()


@dataclass(frozen=True)
class _Pairs:
    """What does not change while parameters are fitted.

    Attributes:
        squares: (D, N * N) squared differences of the settings, by column.
        gaps: (N, N) differences in time.
        same: (N, N) 1 where both are of one trial.
        told: (N, N) scalar products of what earlier sweeps say.
    """

    squares: Array
    gaps: Array
    same: Array
    told: Array

    @classmethod
    def of(cls, points: Points) -> _Pairs:
        columns = points.x.T
        squares = (columns[:, :, None] - columns[:, None, :]) ** 2
        gaps = np.abs(points.t[:, None] - points.t[None, :])
        same = (points.owner[:, None] == points.owner[None, :]).astype(np.float64)
        return cls(squares.reshape(len(columns), -1), gaps, same, _products(points.told, points.told))


def _likelihood(theta: Array, values: Array, pairs: _Pairs) -> tuple[float, Array]:
    """Return the negative logarithm of the marginal likelihood and its gradient."""
    from scipy.linalg import cho_solve, cholesky
    from scipy.linalg.lapack import dpotri

    n = len(values)
    inverse_squares = np.exp(-2 * theta[:-8])
    rise, place, shape, own, scale, own_scale, trust, noise = np.exp(theta[-8:])
    s = np.sqrt(5 * (inverse_squares @ pairs.squares)).reshape(n, n)
    decay = np.exp(-s)
    kx = (1 + s + s * s / 3) * decay
    rt, ro = math.sqrt(3) * pairs.gaps / scale, math.sqrt(3) * pairs.gaps / own_scale
    kt, ko = (1 + rt) * np.exp(-rt), (1 + ro) * np.exp(-ro) * pairs.same
    outer = place + shape * kt
    covariance = _LEVEL + rise * kt + kx * outer + own * ko + trust * pairs.told
    covariance[np.diag_indices(n)] += noise + _JITTER
    factor = cholesky(covariance, lower=True, check_finite=False)
    alpha = cho_solve((factor, True), values, check_finite=False)
    lower, _ = dpotri(factor, lower=1)
    w = np.tril(lower) + np.tril(lower, -1).T - np.outer(alpha, alpha)
    value = 0.5 * float(values @ alpha) + float(np.log(np.diag(factor)).sum())
    wt, wo = w * kt, w * ko
    slope = np.empty_like(theta)
    slope[:-8] = inverse_squares * (pairs.squares @ (w * outer * (5 / 3) * (1 + s) * decay).ravel())
    slope[-8:] = (
        rise * wt.sum(),
        place * (w * kx).sum(),
        shape * (wt * kx).sum(),
        own * wo.sum(),
        ((rise + shape * kx) * w * rt * rt * np.exp(-rt)).sum(),
        own * (w * pairs.same * ro * ro * np.exp(-ro)).sum(),
        trust * (w * pairs.told).sum(),
        noise * np.trace(w),
    )
    return value, 0.5 * slope


def _covariance(theta: Array, one: Points, other: Points) -> Array:
    lengths = np.exp(theta[:-8])
    rise, place, shape, own, scale, own_scale, trust, _ = np.exp(theta[-8:])
    a, b = one.x / lengths, other.x / lengths
    squared = np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T, 0.0)
    s = np.sqrt(5 * squared)
    kx = (1 + s + s * s / 3) * np.exp(-s)
    gaps = np.abs(one.t[:, None] - other.t[None, :])
    kt = _matern(gaps / scale)
    result = _LEVEL + rise * kt + kx * (place + shape * kt)
    same = one.owner[:, None] == other.owner[None, :]
    if same.any():
        result = result + own * _matern(gaps / own_scale) * same
    if one.told.shape[1]:
        result = result + trust * _products(one.told, other.told)
    return np.asarray(result)


def _matern(distance: Array) -> Array:
    """Matérn 3/2: curves are smooth, so that a trend goes on for a while."""
    r = math.sqrt(3) * distance
    return np.asarray((1 + r) * np.exp(-r))


def _products(one: Array, other: Array) -> Array:
    return np.asarray(one @ other.T / max(1, one.shape[1]))


def _squares(told: Array) -> Array:
    return np.asarray((told * told).sum(1) / max(1, told.shape[1]))
