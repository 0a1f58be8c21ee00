"""The acquisition: the logarithm of the expected improvement, searched over settings that exist."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from bayes_opt.acquisition import AcquisitionFunction
from numpy.typing import NDArray

from autodl_ray.tune.proposers.bayes.posterior import Posterior
from autodl_ray.tune.proposers.cube import Cube

__all__ = ["LogImprovement", "log_improvement"]

Array = NDArray[np.float64]

_ROUNDS = 4


class LogImprovement(AcquisitionFunction):
    """Expected improvement over the best mean of a known point, in logarithms.

    The logarithm has a slope where the improvement itself is 0 in floating point, which is nearly everywhere late in a
    search. Source: S. Ament et al., Unexpected improvements to expected improvement for Bayesian optimization (2023).

    The search looks at settings only: many drawn ones and some near the best known, then from the best of these a
    quasi-Newton search over the numbers in turn with steps to the neighbouring whole numbers and the other choices.

    Args:
        cube: The ranges.
        pending: (M, F) coordinates of the settings that are being tried.
        leaders: (K, F) coordinates of the best known settings.
        known: The encoded settings that were tried, as bytes: they are not suggested again.
        num_draws: Settings that are looked at first.
        num_starts: The best of these that are improved.

    Attributes:
        chosen: (F,) coordinates of what :meth:`suggest` found.
    """

    def __init__(
        self,
        cube: Cube,
        *,
        pending: Array,
        leaders: Array,
        known: frozenset[bytes],
        num_draws: int = 1500,
        num_starts: int = 6,
    ) -> None:
        super().__init__()
        self._cube = cube
        self._pending = pending
        self._leaders = leaders
        self._known = known
        self._num_draws = num_draws
        self._num_starts = num_starts
        self.chosen: Array = np.zeros(len(cube.names))

    def base_acq(self, mean: Array, std: Array, best: float = 0.0) -> Array:
        """Return the logarithm of the expected improvement over ``best`` for means and deviations (N,)."""
        return np.asarray(np.log(std) + log_improvement((mean - best) / std)[0])

    def suggest(
        self,
        gp: Any,
        target_space: Any,
        n_random: int = 0,
        n_smart: int = 0,
        fit_gp: bool = True,
        random_state: Any = None,
    ) -> Array:
        """Fit the process to what is registered, and return the most promising point, (D,).

        Args:
            gp: The regressor of the optimizer.
            target_space: What is registered.
            n_random: Not looked at: how hard is searched is told to the object.
            n_smart: Not looked at.
            fit_gp: Not looked at: it is always fitted.
            random_state: A ``numpy.random.RandomState``.
        """
        self._fit_gp(gp, target_space)
        posterior = Posterior(gp, self._cube.encode(self._pending))
        rows = self._candidates(random_state)
        self.chosen = self._best(posterior, rows)
        point: Array = self._cube.encode(self.chosen[None])[0]
        return point

    def get_acquisition_params(self) -> dict[str, Any]:
        """There are none to keep: the state is the history."""
        return {}

    def set_acquisition_params(self, params: dict[str, Any]) -> None:
        """There are none."""

    def _best(self, posterior: Posterior, rows: Array) -> Array:
        """Return the best setting found from these, (F,)."""
        scores = self._scores(posterior, rows)
        order = np.argsort(-scores, kind="stable")[: self._num_starts]
        improved = [self._improved(posterior, rows[i], float(scores[i])) for i in order]
        return max(improved, key=lambda pair: pair[1])[0]

    def _candidates(self, random: Any) -> Array:
        """Return drawn settings, and the leaders with some of their fields moved a little or drawn anew."""
        fields = len(self._cube.names)
        drawn = self._cube.draw(random.random_sample((self._num_draws, fields)))
        near = np.repeat(self._leaders, max(1, self._num_draws // (4 * max(1, len(self._leaders)))), axis=0)
        widths = 10.0 ** random.uniform(-3, -0.5, size=(len(near), 1))
        moved = self._cube.is_number[None] & (random.random_sample(near.shape) < 0.7)
        near = np.where(moved, near + widths * random.standard_normal(near.shape), near)
        anew = ~self._cube.is_number[None] & (random.random_sample(near.shape) < 0.3)
        near = np.where(anew, self._cube.draw(random.random_sample(near.shape)), near)
        return np.concatenate([drawn, self._cube.snap(near), self._leaders])

    def _scores(self, posterior: Posterior, rows: Array) -> Array:
        points = self._cube.encode(rows)
        mean, std = posterior.predict(points)
        new = np.array([point.tobytes() not in self._known for point in points], dtype=bool)
        return np.where(new, self.base_acq(mean, std, posterior.best), -np.inf)

    def _improved(self, posterior: Posterior, row: Array, score: float) -> tuple[Array, float]:
        """Climb from one setting, by turns over the numbers and over neighbouring settings."""
        for _ in range(_ROUNDS):
            before = score
            for rows in (self._climbed(posterior, row), self._cube.neighbours(row)):
                scores = self._scores(posterior, rows)
                if scores.max() > score:
                    row, score = rows[int(scores.argmax())], float(scores.max())
            if score == -math.inf or score - before < 1e-4:
                break
        return row, score

    def _climbed(self, posterior: Posterior, row: Array) -> Array:
        """Return where a quasi-Newton search over the numbers ends: as a row of settings, (1, F)."""
        from scipy.optimize import minimize

        cube = self._cube
        free = cube.is_number & cube.active(row[None])[0]
        if not free.any():
            return row[None]
        columns = [cube.encoding.first[cube.names[f]] for f in np.flatnonzero(free)]
        point = cube.encode(row[None])[0]

        def negative(values: Array) -> tuple[float, Array]:
            point[columns] = values
            mean, std, d_mean, d_std = posterior.gradient(point)
            z = (mean - posterior.best) / std
            height, slope = log_improvement(np.array([z]))
            s = float(slope[0])
            d = (d_std * (1.0 - z * s) + d_mean * s) / std
            return -(math.log(std) + float(height[0])), -d[columns]

        found = minimize(
            negative,
            point[columns],
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, 1.0)] * len(columns),
            options={"maxiter": 40},
        )
        climbed = row.copy()
        climbed[free] = found.x
        return cube.snap(climbed[None])


def log_improvement(z: Array) -> tuple[Array, Array]:
    """Return log(φ(z) + zΦ(z)), stable far below 0, and its slope.

    Example:
        >>> round(float(log_improvement(np.array([0.0]))[0][0]), 4)
        -0.9189
    """
    from scipy.special import erfcx, ndtr

    z = np.maximum(np.asarray(z, dtype=float), -1e8)
    high = np.maximum(z, -1.0)
    density = np.exp(-(high**2) / 2) / math.sqrt(2 * math.pi)
    direct = density + high * ndtr(high)
    low = np.minimum(z, -1.0)
    mills = math.sqrt(math.pi / 2) * erfcx(-low / math.sqrt(2))
    left = np.where(low < -1e3, low**-2.0, np.maximum(1.0 + low * mills, 1e-300))
    tail = -(low**2) / 2 - math.log(2 * math.pi) / 2 + np.log(left)
    value = np.where(z > -1.0, np.log(direct), tail)
    slope = np.where(z > -1.0, ndtr(high) / direct, np.where(low < -1e3, -low, mills / left))
    return value, slope
