"""CMA-ES: each generation of trials moves and bends the normal distribution that the next one is drawn from."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autodl_ray.errors import MissingExtraError
from autodl_ray.seeding import seed_for
from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.proposers.cube import Cube

if TYPE_CHECKING:
    from cmaes import CMA

__all__ = ["CmaProposer", "ranks_of"]

_SIGMA = 0.25


class CmaProposer:
    """Covariance matrix adaptation over the coordinates of all fields, by the package ``cmaes``.

    Trials are taken in generations of their numbers; one is told when none of its trials is running, so that the
    order in which they end changes nothing. Only ranks are told (the method looks at nothing else): finished trials
    by value, then those that were cut short by the epoch they reached and their last value, failed ones last. It
    starts at the baseline. A choice is a coordinate too, in equal shares; of a field whose condition does not hold,
    the coordinate is told in the middle. Source: N. Hansen, The CMA evolution strategy: a tutorial (2016).

    Raises:
        MissingExtraError: The package ``cmaes`` is not installed.
    """

    def __init__(self, context: SearchContext) -> None:
        try:
            import cmaes  # noqa: F401  # is it there?
        except ImportError as error:
            raise MissingExtraError(
                "search cmaes needs the package cmaes, which is not installed.",
                hint="pip install 'autodl_ray[cmaes]', or another search: tpe, bayes, curves",
            ) from error
        self._context = context
        self._cube = Cube(context.space)
        self._dimensions = max(2, len(context.space))  # the package refuses one
        self._size = 4 + int(3 * math.log(self._dimensions))
        self._generations: list[tuple[tuple[Any, ...], CMA]] = []

    def propose(self, number: int, attempt: int, history: Sequence[Observed]) -> dict[str, Any]:
        """Draw from the distribution after the last whole generation."""
        strategy = copy.deepcopy(self._after(history))
        strategy.reseed_rng(seed_for(self._context.seed, "cmaes", number, attempt))
        units = strategy.ask()[: len(self._cube.names)]
        return self._cube.params(self._cube.draw(np.clip(units, 0.0, 1.0)[None])[0])

    def _after(self, history: Sequence[Observed]) -> CMA:
        """Tell the whole generations of the history; those told before, and not changed since, are remembered."""
        strategy = self._begun()
        for whole, first in enumerate(range(0, len(history) - self._size + 1, self._size)):
            trials = history[first : first + self._size]
            if any(o.status == "running" for o in trials):
                break
            told = tuple((o.number, rank) for o, rank in zip(trials, ranks_of(trials, self._context.mode), strict=True))
            if whole == len(self._generations) or self._generations[whole][0] != told:
                del self._generations[whole:]
                strategy = copy.deepcopy(strategy)
                units = [self._units(o) for o in trials]
                strategy.tell([(u, float(rank)) for u, (_, rank) in zip(units, told, strict=True)])
                self._generations.append((told, strategy))
            strategy = self._generations[whole][1]
        return strategy

    def _begun(self) -> CMA:
        from cmaes import CMA

        bounds = np.tile([0.0, 1.0], (self._dimensions, 1))
        start = self._padded(self._cube.units(self._context.baseline))
        seed = seed_for(self._context.seed, "cmaes")
        return CMA(np.clip(start, 0.05, 0.95), _SIGMA, bounds=bounds, population_size=self._size, seed=seed)

    def _units(self, observed: Observed) -> NDArray[np.float64]:
        return self._padded(self._cube.units(observed.params))

    def _padded(self, units: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([units, np.full(self._dimensions - len(units), 0.5)])


def ranks_of(trials: Sequence[Observed], mode: str) -> list[int]:
    """Return the rank of each trial among these, 0 the best; see :class:`CmaProposer`."""
    sign = -1.0 if mode == "max" else 1.0

    def key(trial: Observed) -> tuple[int, int, float, int]:
        if trial.status == "failed" or trial.value is None:
            return 2, 0, 0.0, trial.number
        if trial.status == "finished":
            return 0, 0, sign * trial.value, trial.number
        return 1, -trial.epochs, sign * trial.values[-1][1], trial.number

    order = {trial.number: rank for rank, trial in enumerate(sorted(trials, key=key))}
    return [order[trial.number] for trial in trials]
