"""How the hyperparameters of the kernel are found: the most plausible ones, by likelihood and prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["log_prior", "most_plausible"]

Array = NDArray[np.float64]

_NOISE = (-8.0, 2.0)
_VARIANCE = (0.0, 1.0)
_SPREAD = 1.0


def log_prior(theta: Array) -> tuple[float, Array]:
    """Return the log prior of a :class:`FieldMatern`'s ``theta`` and its gradient.

    All are log-normal: length scales around 0.5 of a range, more in more fields, where all distances are longer
    (C. Hvarfner et al., Vanilla Bayesian optimization performs great in high dimensions, 2024); noise around 0.03 % of
    the variance of the targets; the function's variance around theirs. Few trials would else fit almost anything.
    """
    fields = len(theta) - 2
    middle = np.array([np.log(0.5) + 0.5 * np.log(max(1.0, fields / 3))] * fields + [_NOISE[0], _VARIANCE[0]])
    spread = np.array([_SPREAD] * fields + [_NOISE[1], _VARIANCE[1]])
    z = (theta - middle) / spread
    return float(-0.5 * (z**2).sum()), -z / spread


def most_plausible(negative: Callable[..., tuple[float, Array]], initial: Array, bounds: Array) -> tuple[Array, float]:
    """Find the highest posterior from three starts; in the form that scikit-learn wants an ``optimizer``.

    Args:
        negative: Returns the negative log likelihood of a ``theta`` and its gradient.
        initial: (P,) where scikit-learn would start.
        bounds: (P, 2) of ``theta``.

    Returns:
        ``theta`` and its negative log posterior.
    """
    from scipy.optimize import minimize

    def objective(theta: Array) -> tuple[float, Array]:
        value, gradient = negative(theta, eval_gradient=True)
        prior, slope = log_prior(theta)
        return float(value) - prior, np.asarray(gradient) - slope

    found: list[Any] = []
    for shift in (0.0, -1.2, 1.2):
        start = np.concatenate([initial[:-2] + shift, [_NOISE[0], _VARIANCE[0]]])
        start = np.clip(start, bounds[:, 0], bounds[:, 1])
        found.append(minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60}))
    best = min(found, key=lambda result: float(result.fun))
    return np.asarray(best.x), float(best.fun)
