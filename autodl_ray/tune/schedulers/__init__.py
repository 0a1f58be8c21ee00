"""Schedulers: they share the epochs of a sweep out among its trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autodl_ray.tune.contracts import Scheduler, SearchContext
from autodl_ray.tune.schedulers.asha import AshaPromotion, AshaStopping
from autodl_ray.tune.schedulers.goals import Goal
from autodl_ray.tune.schedulers.halving import Halving
from autodl_ray.tune.schedulers.median import MedianStop
from autodl_ray.tune.schedulers.simple import NoScheduler, Patience

__all__ = ["SCHEDULERS", "Goal", "Halving", "Patience", "make_scheduler"]


def make_scheduler(name: str, context: SearchContext, *, patience: int = 0) -> Scheduler:
    """Make the scheduler ``name`` (a key of :data:`SCHEDULERS`).

    Args:
        name: Of ``tune.scheduler``, but ``auto``.
        context: The search it is for.
        patience: Stop a trial after so many epochs without gain, 0: never.
    """
    scheduler = SCHEDULERS[name](context)
    return Patience(scheduler, patience, context.mode) if patience else scheduler


def _freeze_thaw(context: SearchContext) -> Scheduler:
    from autodl_ray.tune.curves import FreezeThaw

    scheduler: Scheduler = FreezeThaw(context)
    return scheduler


def _curve_stop(context: SearchContext) -> Scheduler:
    from autodl_ray.tune.curves import CurveStop

    scheduler: Scheduler = CurveStop(context)
    return scheduler


SCHEDULERS: Mapping[str, Callable[[SearchContext], Scheduler]] = {
    "none": lambda _: NoScheduler(),
    "asha": AshaStopping,
    "asha_promotion": AshaPromotion,
    "median": MedianStop,
    "curve_stop": _curve_stop,
    "freeze_thaw": _freeze_thaw,
}
"""By name; those that need scikit-learn are imported when they are made."""
