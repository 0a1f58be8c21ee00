"""The strategy ``bayes``: a Gaussian process on the package bayesian-optimization, over whatever the ranges hold."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autodl_ray.seeding import seed_for
from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.proposers.bayes.data import Data
from autodl_ray.tune.proposers.bayes.targets import Target, pending_of, targets_of
from autodl_ray.tune.proposers.cube import Cube
from autodl_ray.tune.proposers.plain import QmcProposer

if TYPE_CHECKING:
    from bayes_opt import BayesianOptimization

__all__ = ["BayesProposer"]

Array = NDArray[np.float64]

_MOST_TOLD = 128
_NUM_LEADERS = 3
_JITTER = 1e-10


class BayesProposer:
    """Registers the history with ``BayesianOptimization`` and takes its suggestion.

    Whole numbers, logarithmic ranges, choices and conditions are handled by the encoding
    (:class:`autodl_ray.tune.space.Encoding`) and by an acquisition that looks at settings only
    (:class:`LogImprovement`); the kernel has one length scale a field, with priors (:class:`FieldMatern`). Every second
    trial takes the most plausible length scales, the others draw them, which looks farther around. The first trials are
    points of a scrambled Sobol' sequence. What is told of trials that were cut short, failed, or are
    running: see :mod:`autodl_ray.tune.proposers.bayes.targets`. Beyond 128 trials the best and the newest are told, so
    that a proposal does not cost more as the sweep grows.
    """

    def __init__(self, context: SearchContext) -> None:
        self._context = context
        self._cube = Cube(context.space)
        self._first = QmcProposer(context)
        self._startup = max(5, min(10, len(context.space) + 2))

    def propose(self, number: int, attempt: int, history: Sequence[Observed]) -> dict[str, Any]:
        """Return the settings that are expected to improve most on the best known."""
        targets = self.told(history)
        if sum(target.kind != "failed" for target in targets) < self._startup:
            return self._first.propose(number, attempt, history)
        if attempt:  # nothing new was found where it matters
            return self._first.propose(number, attempt, history)
        return self._suggested(targets, history, number)

    def told(self, history: Sequence[Observed]) -> list[Target]:
        """Return what the process is told."""
        targets = targets_of(history, self._context.mode)
        if len(targets) <= _MOST_TOLD:
            return targets
        half = _MOST_TOLD // 2
        best = sorted(targets[:-half], key=lambda t: (-t.value, t.number))[:half]
        return [*sorted(best, key=lambda t: t.number), *targets[-half:]]

    def _suggested(self, targets: list[Target], history: Sequence[Observed], number: int) -> dict[str, Any]:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

        from autodl_ray.tune.proposers.bayes.improvement import LogImprovement

        cube = self._cube
        data = Data.of(targets, cube)
        order = np.argsort(-data.values, kind="stable")[:_NUM_LEADERS]
        acquisition = LogImprovement(
            cube,
            pending=np.array([cube.place(p) for p in pending_of(history)]).reshape(-1, len(cube.names)),
            leaders=data.rows[order],
            known=frozenset(cube.encode(np.array([cube.place(o.params)]))[0].tobytes() for o in history),
        )
        # a second thread of BLAS waits for the first beside busy trainings, and brings nothing at this size
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._optimizer(data, acquisition, number).suggest()
        return cube.params(acquisition.chosen)

    def _optimizer(self, data: Data, acquisition: Any, number: int) -> BayesianOptimization:
        """Return the package's optimizer with our kernel, and with everything registered."""
        from bayes_opt import BayesianOptimization

        from autodl_ray.tune.proposers.bayes.fit import Plausibility, drawn, most_plausible
        from autodl_ray.tune.proposers.bayes.kernel import FieldMatern

        seed = seed_for(self._context.seed, "bayes", number)
        optimizer = BayesianOptimization(
            f=None,
            pbounds={name: (0.0, 1.0) for name in self._cube.encoding.names},
            acquisition_function=acquisition,
            random_state=seed,
            verbose=0,
        )
        fields = len(self._cube.names)
        plausibility = Plausibility(data, self._cube.groups, _JITTER)

        def fitted(_likelihood: Any, _initial: Array, bounds: Array) -> tuple[Array, float]:
            return drawn(plausibility, bounds, seed) if number % 2 else most_plausible(plausibility, bounds)

        optimizer.set_gp_params(
            kernel=FieldMatern(tuple(self._cube.groups), (0.5,) * fields),
            alpha=data.variances + _JITTER,
            normalize_y=False,
            n_restarts_optimizer=0,
            optimizer=fitted,
        )
        for point, value in zip(data.points, data.values, strict=True):
            optimizer.space.register(point, float(value))  # the optimizer's own writes all targets into a log each time
        return optimizer
