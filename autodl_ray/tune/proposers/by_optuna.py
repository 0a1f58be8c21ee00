"""Optuna's samplers as strategies: one adapter, which tells them the history and asks for one trial."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from autodl_ray.seeding import seed_for
from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.proposers.plain import RandomProposer
from autodl_ray.tune.proposers.told import Told, storage_of
from autodl_ray.tune.space import is_active, only_active, ordered

if TYPE_CHECKING:
    import optuna

__all__ = ["OptunaProposer", "gp", "tpe"]

_TPE_STARTUP = 8
_GP_STARTUP = 10
_MOST_TOLD = 300
_BEST_TOLD = 50


class OptunaProposer:
    """A sampler of Optuna, asked anew for each trial with a seed of its own.

    Nothing of the sampler is kept: it is made from the history at each proposal (the converted trials are, see
    :class:`Told`), so that a sweep that was killed goes on as if it had not been. Running trials are told too, so
    that two trials do not try the same place.

    Args:
        context: Ranges, direction and seed.
        sampler: Makes the sampler from a seed.
        startup: So many trials with a value come first from independent draws.
        impute: Whether the sampler needs every field of every trial: fields whose condition does not hold are then
            told at the middle of their ranges, and left out of what is proposed. Else they are told as absent, and
            suggested only where they are active.
        complete_only: Whether only finished trials count for ``startup``.
    """

    def __init__(
        self,
        context: SearchContext,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        *,
        startup: int,
        impute: bool,
        complete_only: bool,
    ) -> None:
        self._context = context
        self._sampler = sampler
        self._startup = startup
        self._impute = impute
        self._counting = ("finished",) if complete_only else ("finished", "stopped", "paused")
        self._random = RandomProposer(context)
        self._told: Told | None = None

    def propose(self, number: int, attempt: int, history: Sequence[Observed]) -> dict[str, Any]:
        """Tell the history and ask."""
        known = sum(o.value is not None and o.status in self._counting for o in history)
        if known < self._startup:
            return self._random.propose(number, attempt, history)
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = self._sampler(seed_for(self._context.seed, "optuna", number, attempt))
            return self._asked(sampler, self._bounded(self.told(history)))

    def told(self, history: Sequence[Observed]) -> list[optuna.trial.FrozenTrial]:
        """Return what the sampler is told."""
        self._told = self._told or Told(self._context.space, impute=self._impute)
        return self._told.trials(history)

    def _bounded(self, trials: list[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
        """Leave the best and the newest of many trials, so that a proposal does not cost more as the sweep grows.

        TPE counts at most 25 trials as good and gives older ones little weight, so it hardly misses the others.
        """
        if len(trials) <= _MOST_TOLD:
            return trials
        sign = 1.0 if self._context.mode == "max" else -1.0
        old, new = trials[: _BEST_TOLD - _MOST_TOLD], trials[_BEST_TOLD - _MOST_TOLD :]
        complete = [t for t in old if t.state.name == "COMPLETE"]
        best = sorted(complete, key=lambda t: (-sign * t.values[0], t.number))[:_BEST_TOLD]
        return [*sorted(best, key=lambda t: t.number), *new]

    def _asked(self, sampler: optuna.samplers.BaseSampler, trials: list[optuna.trial.FrozenTrial]) -> dict[str, Any]:
        import optuna

        assert self._told is not None
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # its GP names a package that is missing
        try:
            kind = optuna.study.StudyDirection
            direction = kind.MAXIMIZE if self._context.mode == "max" else kind.MINIMIZE
            study = optuna.create_study(sampler=sampler, direction=direction, storage=storage_of(trials))
            distributions, space = self._told.distributions, self._context.space
            if self._impute:
                return only_active(space, study.ask(distributions).params)
            trial, params = study.ask(), dict[str, Any]()
            for name in ordered(space):
                if is_active(space[name], params):
                    params[name] = trial._suggest(name, distributions[name])
            return params
        finally:
            optuna.logging.set_verbosity(verbosity)


def tpe(context: SearchContext) -> OptunaProposer:
    """Tree-structured Parzen estimator of Optuna, after a few random trials.

    Ranges without a condition are modelled together, those with one each by itself, over the trials that have them.
    Source: S. Watanabe, Tree-structured Parzen estimator (2023).
    """

    def sampler(seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.TPESampler(n_startup_trials=0, constant_liar=True, seed=seed)

    return OptunaProposer(context, sampler, startup=_TPE_STARTUP, impute=False, complete_only=False)


def gp(context: SearchContext) -> OptunaProposer:
    """Gaussian process of Optuna, after a few random trials; it looks at finished and running trials only."""

    def sampler(seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.GPSampler(n_startup_trials=0, seed=seed, warn_independent_sampling=False)

    return OptunaProposer(context, sampler, startup=_GP_STARTUP, impute=True, complete_only=True)
