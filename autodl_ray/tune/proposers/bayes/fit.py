"""How the hyperparameters of the kernel are found: the most plausible ones, by likelihood and prior."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from autodl_ray.tune.proposers.bayes.data import Data
from autodl_ray.tune.proposers.bayes.kernel import MEAN, matern

__all__ = ["Plausibility", "drawn", "log_prior", "most_plausible"]

Array = NDArray[np.float64]

_NOISE = (-13.0, 3.0)
_VARIANCE = (0.0, 1.0)
_SPREAD = 1.0
_SHIFTS = (0.0, -1.2, 1.2)
_FIRST_STEPS = 8
_STEPS = 60
_WALK = 80
_REACH = 0.25
_NOISE_REACH = 1.0


def log_prior(theta: Array) -> tuple[float, Array]:
    """Return the log prior of a :class:`FieldMatern`'s ``theta`` and its gradient.

    All are log-normal: length scales around 0.5 of a range, more in more fields, where all distances are longer
    (C. Hvarfner et al., Vanilla Bayesian optimization performs great in high dimensions, 2024); noise around
    0.0002 % of the variance of the targets, but wide: a smooth function is followed to its bottom, a noisy one still
    shows its noise; the function's variance around theirs. Few trials would else fit almost anything.
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

    def value(self, theta: Array) -> float:
        """Return the value only, in a third of the time."""
        _, _, root = self._factored(theta)
        return -np.inf if root is None else self._likelihood(root, self._solved(root)) + log_prior(theta)[0]

    def likelihood(self, theta: Array) -> tuple[float, Array]:
        """Return the log marginal likelihood and its gradient."""
        from scipy.linalg.lapack import dpotri

        shape, slopes, root = self._factored(theta)
        if root is None:
            return -np.inf, np.zeros_like(theta)
        solved = self._solved(root)
        lower, _ = dpotri(root, lower=1)
        pull = np.outer(solved, solved) - (lower + np.tril(lower, -1).T)  # of a covariance on twice the likelihood
        weights, noise, variance = np.exp(-2.0 * theta[:-2]), float(np.exp(theta[-2])), float(np.exp(theta[-1]))
        by_field = -variance * weights * (self._parts @ (pull * slopes).ravel())
        others = [0.5 * noise * np.trace(pull), 0.5 * variance * (pull * shape).sum()]
        return self._likelihood(root, solved), np.concatenate([by_field, others])

    def _factored(self, theta: Array) -> tuple[Array, Array, Array | None]:
        """Return the correlations, their slopes, and the root of the covariances; no root where there is none."""
        from scipy.linalg.lapack import dpotrf

        count = len(self._values)
        shape, slopes = matern((np.exp(-2.0 * theta[:-2]) @ self._parts).reshape(count, count))
        covariances = MEAN + float(np.exp(theta[-1])) * shape
        covariances[np.diag_indices(count)] += float(np.exp(theta[-2])) + self._diagonal
        root, failed = dpotrf(covariances, lower=1, clean=1)
        return shape, slopes, None if failed else root

    def _solved(self, root: Array) -> Array:
        from scipy.linalg.lapack import dpotrs

        solved: Array = dpotrs(root, self._values, lower=1)[0]
        return solved

    def _likelihood(self, root: Array, solved: Array) -> float:
        logarithms = float(np.log(np.diagonal(root)).sum())
        return -0.5 * float(self._values @ solved) - logarithms - 0.5 * len(solved) * math.log(2 * math.pi)


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


def drawn(plausibility: Plausibility, bounds: Array, seed: int) -> tuple[Array, float]:
    """Draw one ``theta`` from its posterior: a random walk of Metropolis' from the most plausible one.

    A few trials leave the length scales open. A search that takes the most plausible ones for true each time asks
    again and again where these point to, and stays at the first good place it finds; draws lead it to other places, at
    the price of one fit. Source: J. Snoek et al., Practical Bayesian
    optimization of machine learning algorithms (2012), who average over many draws in each proposal.

    Args:
        plausibility: The posterior.
        bounds: (F + 2, 2) of ``theta``.
        seed: Of the walk.

    Returns:
        ``theta`` and its negative log posterior.
    """
    generator = np.random.default_rng(seed)
    theta, negative = most_plausible(plausibility, bounds)
    reach = np.array([_REACH] * (len(theta) - 2) + [_NOISE_REACH, _REACH])
    for step in generator.standard_normal((_WALK, len(theta))) * reach:
        luck, tried = generator.exponential(), theta + step
        if (tried < bounds[:, 0]).any() or (tried > bounds[:, 1]).any():
            continue
        value = plausibility.value(tried)
        if -value < negative + luck:
            theta, negative = tried, -value
    return theta, negative


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
