"""The section of the sweep: what is proposed, what is stopped, and what is wanted of the winner."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, field_validator

from autodl_ray.errors import near_names
from autodl_ray.spec.domains import Choice, Domain, Float, Int, conditions_problem
from autodl_ray.spec.training import UNSEARCHED, TrainSpec
from autodl_ray.spec.values import Epochs, Section

__all__ = ["TuneSpec"]


class TuneSpec(Section):
    """The sweep: which values are tried, how they are proposed, and when a trial is stopped."""

    num_samples: NonNegativeInt | Literal["auto"] = Field(
        "auto", description="trials (auto: what the budget holds; 0: none)"
    )
    search: Literal[
        "auto", "curves", "bayes", "tpe", "gp", "cmaes", "qmc", "random", "grid", "one_factor", "portfolio"
    ] = Field(
        "auto",
        description="curves: a Gaussian process over settings and epochs; bayes: one over settings; tpe, gp: Optuna's; "
        "cmaes: CMA-ES (the extra cmaes); qmc: evenly spread points; grid: coarse first, then finer; one_factor: each "
        "trial changes one factor of the defaults; portfolio: good settings of earlier sweeps in the store, then "
        "curves",
    )
    scheduler: Literal["auto", "freeze_thaw", "asha", "asha_promotion", "median", "curve_stop", "none"] = Field(
        "auto",
        description="freeze_thaw: pauses and resumes the trials that a model of their curves favours; asha: stops "
        "all but 1 in reduction_factor at each rung; asha_promotion: pauses them, and resumes the best when their "
        "turn comes; median: stops what is below the median; curve_stop: stops what cannot become the best any more",
    )
    epochs: Epochs = Field("auto", description="most epochs of one trial")
    grace_period: int = Field(1, ge=1, description="epochs before a trial may be stopped")
    reduction_factor: int = Field(3, ge=2, le=10, description="of the trials at a rung, 1 in this many goes on")
    patience: int = Field(0, ge=0, description="stop a trial after so many epochs without gain, 0 = never")
    target: float | None = Field(None, description="end the sweep when a trial reaches this value of the metric")
    plateau: int = Field(0, ge=0, description="end the sweep after so many trials without a new best, 0 = never")
    warm_start: int = Field(
        0, ge=0, le=1000, description="so many good settings of earlier sweeps in the store are tried first"
    )
    metric: Literal["auto", "accuracy", "macro_f1", "loss"] = Field(
        "auto", description="on the validation split; auto: macro_f1 where classes are balanced by weights or sampler"
    )
    limits: dict[Literal["latency_ms", "size_mb"], PositiveFloat] = Field(
        {}, description="what the exported model has to keep, e.g. {latency_ms: 20, size_mb: 5}; measured"
    )
    max_concurrent_trials: PositiveInt | Literal["auto"] = "auto"
    param_space: dict[str, Domain] | None = Field(
        None, description="fields of train and their ranges (null: the model's own, see `autodl models`)"
    )

    @field_validator("param_space")
    @classmethod
    def _fits_train(cls, space: dict[str, Domain] | None) -> dict[str, Domain] | None:
        wrong = [reason for key, domain in (space or {}).items() for reason in _misfits(key, domain)]
        circle = conditions_problem(space or {})
        if circle is not None:
            wrong.append(circle)
        if wrong:
            raise ValueError("; ".join(wrong))
        return space

    @property
    def score(self) -> Literal["accuracy", "macro_f1", "loss"]:
        """The metric; ``auto`` is accuracy where nobody decided otherwise."""
        return "accuracy" if self.metric == "auto" else self.metric

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether the metric is to fall or to rise."""
        return "min" if self.metric == "loss" else "max"


def _misfits(key: str, domain: Float | Int | Choice) -> list[str]:
    """Say what keeps the values of ``domain`` from being values of the field ``key`` of train."""
    known = [k for k in TrainSpec.model_fields if k not in UNSEARCHED]
    if key not in known:
        return [f"{key} is no field of train; {near_names(key, known) or 'known: ' + ', '.join(known)}"]
    values = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
    wrong = []
    for value in values:
        try:
            TrainSpec.model_validate({key: value})
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            wrong.append(f"{key}: {message[:1].lower()}{message[1:]}, got {value!r}")
    return wrong
