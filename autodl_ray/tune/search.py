"""What a sweep searches with: ``auto`` decided, the context of proposer and scheduler made, warm starts remembered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autodl_ray.spec.domains import Domain
from autodl_ray.spec.search import TuneSpec
from autodl_ray.tune.contracts import EarlierSweep, Observed

__all__ = ["WARM", "earlier_from", "needs_earlier", "resolve_search", "warm_event"]

WARM = "warm"
"""The event of a journal that holds what was taken from the store: a resumed sweep needs no store."""


def resolve_search(spec: TuneSpec, space: Mapping[str, Domain], *, single: bool) -> tuple[str, str]:
    """Decide ``search: auto`` and ``scheduler: auto``.

    Args:
        spec: What is wanted.
        space: The ranges.
        single: Whether it is one training and no sweep.

    Returns:
        Names for ``make_proposer`` and ``make_scheduler``.
    """
    if single or not space:
        return "random", "none"
    search = "curves" if spec.search == "auto" else spec.search
    # A grid and one factor at a time are there to be compared: every trial gets all its epochs.
    compared = search in ("grid", "one_factor")
    scheduler = ("none" if compared else "freeze_thaw") if spec.scheduler == "auto" else spec.scheduler
    return search, scheduler


def needs_earlier(spec: TuneSpec) -> bool:
    """Whether earlier sweeps of the store are looked at."""
    return spec.warm_start > 0 or spec.search == "portfolio"


def warm_event(earlier: Iterable[EarlierSweep], first: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the event that remembers the earlier sweeps, and the settings that are tried first because of them."""
    sweeps = [
        {
            "name": sweep.name,
            "facts": dict(sweep.facts),
            "mode": sweep.mode,
            "epochs": sweep.epochs,
            "trials": [
                {"params": dict(t.params), "status": t.status, "values": [list(v) for v in t.values], "value": t.value}
                for t in sweep.trials
            ],
        }
        for sweep in earlier
    ]
    return {"event": WARM, "sweeps": sweeps, "first": [dict(params) for params in first]}


def earlier_from(
    events: Sequence[Mapping[str, Any]],
) -> tuple[tuple[EarlierSweep, ...], tuple[Mapping[str, Any], ...]]:
    """Return what :func:`warm_event` remembered: earlier sweeps, and settings that are tried first."""
    event = next((e for e in events if e["event"] == WARM), None)
    if event is None:
        return (), ()
    sweeps = tuple(
        EarlierSweep(
            sweep["name"],
            sweep["facts"],
            sweep["mode"],
            sweep["epochs"],
            tuple(_observed(number, trial) for number, trial in enumerate(sweep["trials"])),
        )
        for sweep in event["sweeps"]
    )
    return sweeps, tuple(event["first"])


def _observed(number: int, trial: Mapping[str, Any]) -> Observed:
    values = tuple((int(epoch), float(value)) for epoch, value in trial["values"])
    return Observed(number, trial["params"], trial["status"], values, trial["value"])
