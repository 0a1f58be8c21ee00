"""What Optuna is told of a history: each trial once, and again only when it has changed."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autodl_ray.spec.sections import Choice, Domain, Float
from autodl_ray.tune.contracts import Observed
from autodl_ray.tune.space import contains, is_active, only_active, ordered, value_at

if TYPE_CHECKING:
    import optuna

__all__ = ["Told", "distribution_of", "told_trial"]


class Told:
    """The history as Optuna's trials; a trial is converted when it is new or has changed.

    Attributes:
        distributions: Of each range, as Optuna describes it.
    """

    def __init__(self, space: Mapping[str, Domain], *, impute: bool) -> None:
        self.distributions = {name: distribution_of(space[name]) for name in ordered(space)}
        self._space = space
        self._impute = impute
        self._last: list[tuple[Observed, optuna.trial.FrozenTrial | None]] = []

    def trials(self, history: Sequence[Observed]) -> list[optuna.trial.FrozenTrial]:
        """Return the trials of the history, in its order, numbered from 1; without those that have no place."""
        del self._last[len(history) :]
        for position, observed in enumerate(history):
            if position == len(self._last):
                self._last.append((observed, self._converted(observed, position)))
            elif not _equal(self._last[position][0], observed):
                self._last[position] = (observed, self._converted(observed, position))
        return [trial for _, trial in self._last if trial is not None]

    def _converted(self, observed: Observed, position: int) -> optuna.trial.FrozenTrial | None:
        trial = told_trial(observed, self._space, self.distributions, impute=self._impute)
        if trial is not None:
            trial.number = position + 1
        return trial


def told_trial(
    observed: Observed, space: Mapping[str, Domain], distributions: Mapping[str, Any], *, impute: bool
) -> optuna.trial.FrozenTrial | None:
    """Return a trial as Optuna keeps it.

    A finished one is complete, with its best value; one that was stopped, or is paused, is pruned, with the last
    value it reported (as Optuna itself does), and ranks by the epoch it reached; a failed one failed, and has no
    value. A number outside its range (a default may be) is moved to its end.

    Args:
        observed: The trial.
        space: The ranges.
        distributions: The same for Optuna.
        impute: Whether fields whose condition does not hold are told at the middle of their ranges (for samplers
            that need every field), or left out.

    Returns:
        None when a field has no place in its range (a default may be ``auto``).
    """
    from optuna.trial import TrialState, create_trial

    params = _placed(observed.params, space, impute=impute)
    if params is None:
        return None
    state = {
        "running": TrialState.RUNNING,
        "finished": TrialState.COMPLETE,
        "stopped": TrialState.PRUNED,
        "paused": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }[observed.status]
    if observed.value is None and state in (TrialState.COMPLETE, TrialState.PRUNED):
        state = TrialState.FAIL
    last = observed.values[-1][1] if observed.values else None
    return create_trial(
        state=state,
        value={TrialState.COMPLETE: observed.value, TrialState.PRUNED: last}.get(state),
        params=params,
        distributions={name: distributions[name] for name in params},
        intermediate_values=dict(observed.values),
    )


def distribution_of(domain: Domain) -> optuna.distributions.BaseDistribution:
    """Return a range as Optuna describes it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if isinstance(domain, Float):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    return IntDistribution(domain.low, domain.high, log=domain.log)


def _placed(params: Mapping[str, Any], space: Mapping[str, Domain], *, impute: bool) -> dict[str, Any] | None:
    active = only_active(space, params)
    placed: dict[str, Any] = {}
    for name in ordered(space):
        domain = space[name]
        if name in active:
            value = _moved(domain, active[name])
            if value is None:
                return None
            placed[name] = value
        elif impute:
            placed[name] = value_at(domain, 0.5)
        elif is_active(domain, active):
            return None
    return placed


def _moved(domain: Domain, value: Any) -> Any:
    if contains(domain, value):
        return value
    if isinstance(domain, Choice) or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    moved = min(domain.high, max(domain.low, value))
    return moved if isinstance(domain, Float) else round(moved)


def _equal(one: Observed, other: Observed) -> bool:
    """Whether a trial is as it was: its params never change, and reports are only added or written again."""
    return one is other or (
        one.status == other.status
        and len(one.values) == len(other.values)
        and one.value == other.value
        and one.values[-1:] == other.values[-1:]
        and one.params == other.params
    )


def storage_of(trials: Sequence[optuna.trial.FrozenTrial]) -> optuna.storages.BaseStorage:
    """Return a storage for one question: what is asked for is trial 0, what is known are ``trials`` (from 1)."""
    import optuna

    class Prepared(optuna.storages.InMemoryStorage):
        """Holds the trials that are known as they are: adding them again would cost more the longer a sweep is."""

        def get_all_trials(
            self, study_id: int, deepcopy: bool = True, states: Container[optuna.trial.TrialState] | None = None
        ) -> list[optuna.trial.FrozenTrial]:
            asked = super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
            return [*asked, *(t for t in trials if states is None or t.state in states)]

    return Prepared()
