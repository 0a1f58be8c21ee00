"""Which settings mattered in a sweep: hyperparameter importance by Optuna, with how far it can be trusted."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from autodl_ray.errors import StageError
from autodl_ray.pipeline.history.trials import SweepHistory, TrialHistory
from autodl_ray.seeding import rng_for, seed_for

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FEW_TRIALS", "METHODS", "Importance", "ImportanceReport", "importance"]

Method = Literal["fanova", "mdi", "ped_anova"]
METHODS: Mapping[str, str] = {
    "fanova": "functional ANOVA of a random forest (Hutter, Hoos and Leyton-Brown, 2014)",
    "mdi": "mean decrease of impurity in a random forest",
    "ped_anova": "PED-ANOVA: what sets the best tenth of the trials apart (Watanabe, Bansal and Hutter, 2023)",
}
FEW_TRIALS = 30
"""With fewer trials an order of importance is a hint."""
_LEAST_TRIALS = 6
_TREES = 32


@dataclass(frozen=True)
class Importance:
    """How much one setting mattered.

    Attributes:
        name: The field.
        value: Share of the variance it explains, from 0 to 1.
        low: Lower end of the spread over resampled trials (5th percentile), at most ``value``.
        high: Upper end (95th percentile), at least ``value``.
        trials: Trials that have it.
        when: For a conditional field: what it depends on; its share is among the trials that have it.
    """

    name: str
    value: float
    low: float
    high: float
    trials: int
    when: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class ImportanceReport:
    """The importance of every setting of a sweep.

    Attributes:
        rows: The most important first; conditional fields after those that every trial has.
        method: How it was found.
        metric: Whose variance is explained.
        trials: Trials with a value.
        early: Of them, those that did fewer epochs than the longest trial.
        notes: What has to be known to read it.
    """

    rows: tuple[Importance, ...]
    method: str
    metric: str
    trials: int
    early: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)


def importance(
    sweep: SweepHistory, *, method: Method = "fanova", at_epoch: int | None = None, resamples: int = 20, seed: int = 0
) -> ImportanceReport:
    """Find the importance of the searched settings for the best value of each trial.

    A conditional setting is judged among the trials that have it, beside the settings that all trials have: over all
    trials it would be unknown in most.

    Args:
        sweep: With trials.
        method: See :data:`METHODS`.
        at_epoch: Compare the values that trials had at this epoch, and leave out those that did not reach it; None:
            the best value of each trial, whenever it was stopped.
        resamples: Trials are drawn with replacement so many times for the spread.
        seed: Of the resamples and the forests.

    Raises:
        StageError: Too few trials, settings or different values for an answer.
    """
    known = [(t, v) for t in sweep.trials if (v := _value(t, sweep, at_epoch)) is not None]
    names = sorted({name for trial, _ in known for name in trial.params if _varies(name, known)})
    _check(known, names, sweep, at_epoch)
    always = [name for name in names if all(name in trial.params for trial, _ in known)]
    rows = _rows(always, always, known, sweep, method=method, resamples=resamples, seed=seed) if always else []
    for name in (n for n in names if n not in always):
        among = [(t, v) for t, v in known if name in t.params]
        if len(among) >= _LEAST_TRIALS and len({v for _, v in among}) > 1:
            rows += _rows([name], [*always, name], among, sweep, method=method, resamples=resamples, seed=seed)
    if not rows:
        raise StageError("No setting has enough trials for an importance.", seen=f"{len(known)} trials of {sweep.key}")
    longest = max(trial.epochs for trial, _ in known)
    early = 0 if at_epoch else sum(trial.epochs < longest for trial, _ in known)
    return ImportanceReport(
        rows=tuple(rows),
        method=METHODS[method],
        metric=sweep.metric,
        trials=len(known),
        early=early,
        notes=tuple(_notes(known, names, rows, early=early)),
    )


def _value(trial: TrialHistory, sweep: SweepHistory, at_epoch: int | None) -> float | None:
    if at_epoch is not None and trial.epochs < at_epoch:
        return None
    return trial.value(sweep.metric, sweep.mode, until=at_epoch)


def _varies(name: str, known: Sequence[tuple[TrialHistory, float]]) -> bool:
    return len({repr(trial.params[name]) for trial, _ in known if name in trial.params}) > 1


def _check(
    known: Sequence[tuple[TrialHistory, float]], names: Sequence[str], sweep: SweepHistory, at_epoch: int | None
) -> None:
    reached = f" that reached epoch {at_epoch}" if at_epoch is not None else ""
    if len(known) < _LEAST_TRIALS or not names:
        raise StageError(
            "There are too few trials to say which setting mattered.",
            seen=f"{len(known)} trials with a value{reached}, {len(names)} settings that differ, in {sweep.key}",
            accepted=f"at least {_LEAST_TRIALS} trials; {FEW_TRIALS} and more for an order that holds",
            hint="run the same line again with more trials: --num-samples 32",
        )
    if len({value for _, value in known}) < 2:
        raise StageError("All trials have the same value, so no setting mattered.", seen=f"{known[0][1]:.4f}")


def _notes(
    known: Sequence[tuple[TrialHistory, float]], names: Sequence[str], rows: Sequence[Importance], *, early: int
) -> list[str]:
    notes = []
    if len(known) < FEW_TRIALS:
        notes.append(f"{len(known)} trials are few: read the spread, not the order; {FEW_TRIALS} and more say more")
    if early:
        notes.append(
            f"{early} of {len(known)} trials were stopped early: their best value so far counts; --at-epoch N "
            "compares all at the same epoch"
        )
    missing = sorted(set(names) - {row.name for row in rows})
    if missing:
        notes.append(f"too few trials have {', '.join(missing)}")
    notes.append("an importance says what mattered within the ranges that were searched, and nothing beyond them")
    return notes


def _rows(
    wanted: Sequence[str],
    names: Sequence[str],
    known: Sequence[tuple[TrialHistory, float]],
    sweep: SweepHistory,
    *,
    method: Method,
    resamples: int,
    seed: int,
) -> list[Importance]:
    shares = _shares(known, names, sweep, method=method, seed=seed_for(seed, "importance", "all"))
    spread: dict[str, list[float]] = {name: [] for name in wanted}
    rng = rng_for(seed, "importance", *wanted)
    for number in range(resamples):
        drawn = _resampled(known, names, rng)
        if drawn is None:
            continue
        again = _shares(drawn, names, sweep, method=method, seed=seed_for(seed, "importance", number))
        for name in wanted:
            spread[name].append(again[name])
    rows = [
        Importance(
            name=name,
            value=shares[name],
            low=min(shares[name], _quantile(spread[name], 0.05, shares[name])),
            high=max(shares[name], _quantile(spread[name], 0.95, shares[name])),
            trials=len(known),
            when={k: list(v) for k, v in (sweep.space.get(name, {}).get("when") or {}).items()},
        )
        for name in wanted
    ]
    return sorted(rows, key=lambda row: (-row.value, row.name))


def _resampled(
    known: Sequence[tuple[TrialHistory, float]], names: Sequence[str], rng: np.random.Generator
) -> list[tuple[TrialHistory, float]] | None:
    """Draw trials with replacement; None where a setting has one value only, or all values are the same."""
    drawn = [known[int(i)] for i in rng.integers(len(known), size=len(known))]
    usable = len({v for _, v in drawn}) > 1 and all(_varies(name, drawn) for name in names)
    return drawn if usable else None


def _quantile(values: Sequence[float], share: float, otherwise: float) -> float:
    if len(values) < 5:
        return otherwise
    return statistics.quantiles(values, n=20, method="inclusive")[0 if share < 0.5 else -1]


def _shares(
    known: Sequence[tuple[TrialHistory, float]],
    names: Sequence[str],
    sweep: SweepHistory,
    *,
    method: Method,
    seed: int,
) -> dict[str, float]:
    """Return name → share, by Optuna, on a study that holds these trials."""
    import optuna
    from optuna import importance as judges

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize" if sweep.mode == "max" else "minimize")
        distributions = {name: _distribution(name, known, sweep) for name in names}
        for trial, value in known:
            params = {name: _encoded(trial.params[name], distributions[name]) for name in names}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
        judge = _judge(method, seed)
        found = judges.get_param_importances(study, evaluator=judge, params=list(names))
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {name: float(found.get(name, 0.0)) for name in names}


def _judge(method: Method, seed: int) -> Any:
    from optuna import importance as judges

    if method == "fanova":
        return judges.FanovaImportanceEvaluator(n_trees=_TREES, seed=seed)
    if method == "mdi":
        return judges.MeanDecreaseImpurityImportanceEvaluator(n_trees=_TREES, seed=seed)
    return judges.PedAnovaImportanceEvaluator()


def _distribution(name: str, known: Sequence[tuple[TrialHistory, float]], sweep: SweepHistory) -> Any:
    """Return the range as Optuna's; wide enough for trial 0, whose defaults may lie outside."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = [trial.params[name] for trial, _ in known]
    domain = sweep.space.get(name, {})
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if domain.get("type") == "choice" or len(numbers) < len(values):
        return CategoricalDistribution(sorted({repr(v) for v in (*values, *(domain.get("values") or ()))}))
    low, high = (f([*numbers, domain.get(end, numbers[0])]) for f, end in ((min, "low"), (max, "high")))
    log = bool(domain.get("log")) and low > 0
    if domain.get("type") == "int" and all(float(v).is_integer() for v in numbers):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _encoded(value: Any, distribution: Any) -> Any:
    return repr(value) if hasattr(distribution, "choices") else value
