"""Two or more runs side by side: which factors differ, and how sure the difference of their scores is."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from autodl_ray.pipeline.history.runs import RunHistory

if TYPE_CHECKING:
    from autodl_ray.evaluate.differences import Difference

__all__ = ["Comparison", "Factor", "ScoreDifference", "compare", "factors"]

_NO_FACTORS = ("schema_version", "name", "serve", "log", "disk_limit", "repeat", "evaluate")
"""Parts of the spec that change neither data nor training."""


@dataclass(frozen=True)
class Factor:
    """Something in which the runs differ.

    Attributes:
        name: E.g. ``train.lr``, ``data``, ``winner.lr``, ``torch``.
        kind: ``spec``, ``data``, ``winner`` (what a search chose) or ``software``.
        values: One a run, in their order; None where a run has none.
    """

    name: str
    kind: Literal["spec", "data", "winner", "software"]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class ScoreDifference:
    """How much the score of a run differs from that of the first.

    Attributes:
        run: Name of the run.
        split: ``validation`` or ``test``.
        metric: ``accuracy`` or ``macro_f1``.
        first: Score of the first run (the mean of its repeats where it has some).
        this: Score of this one.
        interval: The difference with its interval; None where none can be given.
        why_none: Why not, and what to do about it.
    """

    run: str
    split: Literal["validation", "test"]
    metric: str
    first: float
    this: float
    interval: Difference | None
    why_none: str = ""


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        runs: Names; the first is what the others are compared with.
        factors: What differs.
        differences: Of the scores.
        warnings: What forbids a conclusion.
    """

    runs: tuple[str, ...]
    factors: tuple[Factor, ...]
    differences: tuple[ScoreDifference, ...]
    warnings: tuple[str, ...]


def compare(runs: Sequence[RunHistory]) -> Comparison:
    """Compare the first run with each of the others.

    Args:
        runs: At least two.
    """
    found = factors(runs)
    differences: list[ScoreDifference] = []
    for other in runs[1:]:
        differences += _validation(runs[0], other) + _test(runs[0], other)
    return Comparison(
        runs=tuple(run.name for run in runs),
        factors=tuple(found),
        differences=tuple(differences),
        warnings=tuple(_warnings(runs, found)),
    )


def factors(runs: Sequence[RunHistory]) -> list[Factor]:
    """Return everything that differs between the runs, each factor once."""
    specs = [_flat({k: v for k, v in run.spec.items() if k not in _NO_FACTORS}) for run in runs]
    found: list[Factor] = []
    for name in sorted({name for spec in specs for name in spec} - {"data.path"}):
        found += _factor(name, "spec", [spec.get(name) for spec in specs])
    for name in sorted({name for run in runs for name in run.policies}):
        found += _factor(f"policy {name}", "spec", [run.policies.get(name) for run in runs])
    found += _factor("data", "data", [run.summary.dataset for run in runs])
    named = {factor.name for factor in found}
    for name in ("source", "epochs", *sorted({p for run in runs for p in _params(run)})):
        values = [_params(run).get(name) if name not in ("source", "epochs") else _of_winner(run, name) for run in runs]
        if f"train.{name}" not in named:  # set by the user in one place: counted there
            found += _factor(f"winner.{name}", "winner", values)
    for name in sorted({name for run in runs for name in run.packages}):
        found += _factor(name, "software", [run.packages.get(name) for run in runs])
    return found


def _factor(name: str, kind: Literal["spec", "data", "winner", "software"], values: list[Any]) -> list[Factor]:
    return [Factor(name, kind, tuple(values))] if len({json.dumps(v, sort_keys=True) for v in values}) > 1 else []


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, Mapping) and value and key not in ("param_space", "limits"):
            rows |= _flat(value, f"{prefix}{key}.")
        else:
            rows[prefix + key] = value
    return rows


def _params(run: RunHistory) -> Mapping[str, Any]:
    return run.winning_row.get("params") or {}


def _of_winner(run: RunHistory, name: str) -> Any:
    value = run.winning_row.get(name)
    return str(value).split(" ")[0] if name == "source" and value else value  # the number of a trial is no factor


def _warnings(runs: Sequence[RunHistory], found: Sequence[Factor]) -> list[str]:
    texts = []
    if len(found) > 1:
        names = ", ".join(factor.name for factor in found)
        texts.append(
            f"{len(found)} factors differ ({names}): the difference of the scores cannot be put down to one of them; "
            "change one at a time (autodl run --set …), with the same --seed"
        )
    for kind, text in (("data", "the data differ: scores on other pictures are not comparable"),):
        if any(factor.kind == kind for factor in found):
            texts.append(text)
    for run in runs:
        if run.summary.status != "done":
            texts.append(f"{run.name} is {run.summary.status}, not done: its scores may still change")
    if len({run.summary.metric for run in runs}) > 1:
        texts.append(f"models were chosen by different metrics: {', '.join(r.summary.metric for r in runs)}")
    return texts


def _validation(first: RunHistory, other: RunHistory) -> list[ScoreDifference]:
    metric = first.summary.metric
    a, b = _replicates(first, metric), _replicates(other, metric)
    if len(a) > 1 and len(b) > 1:
        from autodl_ray.evaluate.differences import welch_difference

        means = [sum(values) / len(values) for values in (a, b)]
        return [ScoreDifference(other.name, "validation", metric, means[0], means[1], welch_difference(a, b))]
    values = [_validation_value(run, metric) for run in (first, other)]
    if values[0] is None or values[1] is None:
        return []
    few = " and ".join(run.name for run, seeds in ((first, a), (other, b)) if len(seeds) < 2)
    why = f"one seed of {few}: run the same line again with --repeat 3 for an interval over seeds"
    return [ScoreDifference(other.name, "validation", metric, values[0], values[1], None, why)]


def _validation_value(run: RunHistory, metric: str) -> float | None:
    return run.winning_row.get(metric) or (run.bundle.get("val_scores") or {}).get(metric)


def _replicates(run: RunHistory, metric: str) -> list[float]:
    repeat = run.facts.get("repeat") or {}
    return [float(row[metric]) for row in repeat.get("replicates", ()) if row.get(metric) is not None]


def _test(first: RunHistory, other: RunHistory) -> list[ScoreDifference]:
    if not first.report or not other.report:
        return []
    return [_test_metric(first, other, metric) for metric in ("accuracy", "macro_f1")]


def _test_metric(first: RunHistory, other: RunHistory, metric: Literal["accuracy", "macro_f1"]) -> ScoreDifference:
    values = float(first.report[metric]), float(other.report[metric])
    answers = [_answers(run) for run in (first, other)]
    why = "the test splits differ: compare runs of the same data version (autodl run version:NAME)"
    if any(rows is None for rows in answers):
        return ScoreDifference(
            other.name, "test", metric, *values, None, "report/predictions.csv is missing or damaged"
        )
    a, b = answers
    assert a is not None
    assert b is not None
    if {path: row[0] for path, row in a.items()} != {path: row[0] for path, row in b.items()}:
        return ScoreDifference(other.name, "test", metric, *values, None, why)
    return ScoreDifference(other.name, "test", metric, *values, _paired(a, b, metric))


def _paired(
    a: Mapping[str, tuple[str, str]], b: Mapping[str, tuple[str, str]], metric: Literal["accuracy", "macro_f1"]
) -> Difference:
    import numpy as np

    from autodl_ray.evaluate.differences import paired_difference
    from autodl_ray.seeding import rng_for

    classes = sorted({name for rows in (a, b) for row in rows.values() for name in row})
    number = {name: i for i, name in enumerate(classes)}
    paths = sorted(a)
    labels, first, second = (
        np.array([number[rows[path][column]] for path in paths], np.int64) for rows, column in ((a, 0), (a, 1), (b, 1))
    )
    rng = rng_for(0, "compare", metric)
    return paired_difference(labels, first, second, metric=metric, num_classes=len(classes), rng=rng)


def _answers(run: RunHistory) -> dict[str, tuple[str, str]] | None:
    """Return path → (true class, answer) of the test pictures; None when there is no whole table."""
    try:
        with (run.folder / "report" / "predictions.csv").open(encoding="utf-8", errors="surrogateescape") as stream:
            return {row["path"]: (row["true"], row["predicted"]) for row in csv.DictReader(stream)} or None
    except (OSError, KeyError, csv.Error):
        return None
