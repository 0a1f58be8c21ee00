"""How the hyperparameters of the kernel are found: the most plausible ones, by likelihood and prior."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autodl_ray.tune.proposers.bayes.data import Data
from autodl_ray.tune.proposers.bayes.kernel import matern

__all__ = ["Plausibility", "log_prior", "most_plausible"]

Array = NDArray[np.float64]

_NOISE = (-8.0, 2.0)
_VARIANCE = (0.0, 1.0)
_SPREAD = 1.0
_SHIFTS = (0.0, -1.2, 1.2)
_FIRST_STEPS = 8
_STEPS = 60


def log_prior(theta: Array) -> tuple[float, Array]:
    """Return the log prior of a :class:`FieldMatern`'s ``theta`` and its gradient.

    All are log-normal: length scales around 0.5 of a range, more in more fields, where all distances are longer
    (C. Hvarfner et al., Vanilla Bayesian optimization performs great in high dimensions, 2024); noise around 0.03 % of
    the variance of the targets; the function's variance around theirs. Few trials would else fit almost anything.
    """
    middle = _middle(len(theta) - 2)
    spread = np.array([_SPREAD] * (len(theta) - 2) + [_NOISE[1], _VARIANCE[1]])
    z = (theta - middle) / spread
    return float(-0.5 * (z**2).sum()), -z / spread


class Plausibility:
    """The log posterior of a :class:`FieldMatern`'s ``theta``, up to a constant, and its gradient.

    The marginal likelihood is the one that scikit-learn computes; here what does not depend on ``theta`` is computed
    once, and the derivatives of the covariances are never written out.

    Args:
        data: What the process is fitted to.
        groups: (D,) the field of each column of the points.
        jitter: Added to the variances, as scikit-learn's ``alpha``.
    """

    def __init__(self, data: Data, groups: NDArray[np.intp], jitter: float) -> None:
        self._values = data.values
        self._diagonal = data.variances + jitter
        self._fields = int(groups.max()) + 1
        count = len(data.points)
        parts = np.zeros((self._fields, count, count))
        for column, group in zip(data.points.T, groups, strict=True):
            parts[group] += (column[:, None] - column[None, :]) ** 2
        self._parts: Array = parts.reshape(self._fields, -1)

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Return the value at ``theta``, (F + 2,), and the gradient; minus infinity where the matrix is singular."""
        likelihood, slope = self.likelihood(theta)
        prior, prior_slope = log_prior(theta)
        return likelihood + prior, slope + prior_slope

    def likelihood(self, theta: Array) -> tuple[float, Array]:
        """Return the log marginal likelihood and its gradient."""
        from scipy.linalg.lapack import dpotrf, dpotri

        count = len(self._values)
        weights, noise, variance = np.exp(-2.0 * theta[:-2]), float(np.exp(theta[-2])), float(np.exp(theta[-1]))
        shape, slopes = matern((weights @ self._parts).reshape(count, count))
        covariances = variance * shape
        covariances[np.diag_indices(count)] += noise + self._diagonal
        root, failed = dpotrf(covariances, lower=1, clean=1)
        if failed:
            return -np.inf, np.zeros_like(theta)
        lower, _ = dpotri(root, lower=1)
        inverse = lower + np.tril(lower, -1).T
        solved = inverse @ self._values
        value = -0.5 * float(self._values @ solved) - float(np.log(np.diagonal(root)).sum())
        pull = np.outer(solved, solved) - inverse  # of each covariance on twice the likelihood
        by_field = -variance * weights * (self._parts @ (pull * slopes).ravel())
        return value - 0.5 * count * np.log(2 * np.pi), np.concatenate(
            [by_field, [0.5 * noise * np.trace(pull), 0.5 * variance * (pull * shape).sum()]]
        )


def most_plausible(plausibility: Plausibility, bounds: Array) -> tuple[Array, float]:
    """Find the highest posterior: a few steps from three starts, then from the best of these to the end.

    Args:
        plausibility: The posterior.
        bounds: (F + 2, 2) of ``theta``.

    Returns:
        ``theta`` and its negative log posterior.
    """
    middle = _middle(len(bounds) - 2)
    starts = [np.concatenate([middle[:-2] + shift, middle[-2:]]) for shift in _SHIFTS]
    first = [_climbed(plausibility, start, bounds, _FIRST_STEPS) for start in starts]
    return _climbed(plausibility, min(first, key=lambda pair: pair[1])[0], bounds, _STEPS)


def _middle(fields: int) -> Array:
    """Return the middle of the prior of ``theta``."""
    return np.array([np.log(0.5) + 0.5 * np.log(max(1.0, fields / 3))] * fields + [_NOISE[0], _VARIANCE[0]])


def _climbed(plausibility: Plausibility, start: Array, bounds: Array, steps: int) -> tuple[Array, float]:
    from scipy.optimize import minimize

    def objective(theta: Array) -> tuple[float, Array]:
        value, slope = plausibility(theta)
        return (-value, -slope) if np.isfinite(value) else (1e25, slope)

    start = np.clip(start, bounds[:, 0], bounds[:, 1])
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps})
    return np.asarray(found.x), float(found.fun)
