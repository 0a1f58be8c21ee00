"""The final training once more with other seeds, so that its score has an interval."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from autodl_ray.pipeline.result import LeaderboardRow
from autodl_ray.pipeline.state import Run, ranked
from autodl_ray.spec import Choice, TuneSpec

if TYPE_CHECKING:
    from autodl_ray.tune import TrialRecord

__all__ = ["fitting_repeats", "repeat_training", "summarise"]

_MOST = 20  # of the spec's repeat
_REPLICATES = 1000  # of train.replicate
_MARGIN = 1.2
"""A training takes up to this many times as long as the one before it."""


def repeat_training(run: Run, *, seconds: float) -> None:
    """Train the final settings with further seeds (``repeat`` of the spec), as far as ``seconds`` allow.

    The first replicate is the final training itself: it is what may be delivered, so that no seed is chosen by its
    score. The others are trials of a grid over ``train.replicate``, counted on from its own, and give the interval.
    What was found is in ``run.facts["repeat"]`` and goes into run.json and the report.

    Args:
        run: With its final training, or with a sweep whose best trial was trained in full.
        seconds: How long it may take.
    """
    first = _final(run)
    if run.spec.repeat < 2 or first is None:
        return
    wanted = run.spec.repeat - 1
    done = run.context.store.find(run.context.key("repeat"))
    have = done.meta["trials"] if done is not None else 0
    fits = have + fitting_repeats(seconds, first.seconds)
    if fits < wanted:
        run.context.progress.say(f"repeat: {1 + min(fits, wanted)} of {1 + wanted} trainings fit into the time left")
    own = int(first.params.get("replicate", run.spec.train.replicate))
    trials = _train(run, first, own=own, number=min(wanted, fits), seconds=seconds) if fits > 0 else ()
    run.facts["repeat"] = summarise(first, trials, metric=run.metric, wanted=1 + wanted, own=own)
    run.context.progress.say(f"repeat: {run.facts['repeat']['line']}")


def fitting_repeats(seconds: float, one_s: float) -> int:
    """Return how many trainings of ``one_s`` seconds end within ``seconds``."""
    return max(0, int(seconds / (_MARGIN * max(one_s, 0.1))))


def summarise(
    first: LeaderboardRow,
    trials: tuple[TrialRecord, ...],
    *,
    metric: str,
    wanted: int,
    own: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Return what the repeats say: every replicate, mean and interval of the metric, and a line for people.

    Only trainings that did as many epochs as the first one, whose replicate is ``own``, count.
    """
    from autodl_ray.evaluate.differences import mean_interval

    rows = [{"replicate": own, "accuracy": first.accuracy, "macro_f1": first.macro_f1, "seconds": first.seconds}]
    rows += [
        {
            "replicate": int(trial.params["replicate"]),
            "accuracy": trial.metrics["accuracy"],
            "macro_f1": trial.metrics["macro_f1"],
            "seconds": round(trial.seconds, 2),
        }
        for trial in trials
        if trial.metrics and trial.epochs == first.epochs
    ]
    values = [float(row[metric]) for row in rows]
    found: dict[str, Any] = {
        "of": first.source,
        "metric": metric,
        "wanted": wanted,
        "replicates": rows,
        "chosen_by_search": first.source.startswith("sweep"),
    }
    name = metric.replace("_", "-")
    if len(values) < 2:
        return found | {"line": f"none of {wanted - 1} further trainings was done; more time or a smaller repeat"}
    mean, low, high = mean_interval(values, confidence=confidence)
    low, high = max(low, 0.0), min(high, 1.0)  # Student's t knows no bounds, and two seeds have a wide interval
    line = f"{name} {mean:.4f} ({low:.4f} to {high:.4f}) over {len(values)} seeds of {first.source}, validation split"
    if found["chosen_by_search"]:
        line += f"; seed {own} was the best of a search, which flatters it"
    return found | {"mean": mean, "low": low, "high": high, "confidence": confidence, "line": line}


def _final(run: Run) -> LeaderboardRow | None:
    """The row of the last training, else of the best trial; None where only the quick model is there."""
    trainings = [row for row in run.rows if row.source.startswith("train")]
    trials = [row for row in run.rows if row.source.startswith("sweep ")]
    if trainings:
        return ranked(trainings, run.metric)[0]
    return ranked(trials, run.metric)[0] if trials else None


def _train(run: Run, first: LeaderboardRow, *, own: int, number: int, seconds: float) -> tuple[TrialRecord, ...]:
    from autodl_ray import tune
    from autodl_ray.pipeline.steps import sweep_inputs

    spec = run.spec.tune.model_dump()
    # All there may be: a later run with a larger repeat goes on with the same sweep.
    others = tuple((own + step) % _REPLICATES for step in range(1, _MOST))
    grid = {"search": "grid", "scheduler": "none", "patience": 0, "target": None, "plateau": 0, "warm_start": 0}
    inputs = sweep_inputs(
        run,
        base=run.spec.train_with({**first.params, "replicate": others[0]}),
        num_samples=number,
        epochs=int(first.epochs),  # as many as were done, where the clock shortened the plan
        deadline=time.time() + seconds,
        param_space={"replicate": Choice(values=others)},
        enqueue=tuple({"replicate": number} for number in others[1:]),  # a grid has an order of its own
    )
    return tune.run(TuneSpec.model_validate({**spec, **grid}), inputs, key="repeat", context=run.context).trials
