"""`autodl runs compare`: which factors differ between runs, and how sure the difference of their scores is."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodl_ray.cli.console import Console
from autodl_ray.cli.runs.common import Json, StoreOption, store_folder
from autodl_ray.errors import InputError

if TYPE_CHECKING:
    from autodl_ray.pipeline.history.compare import Comparison, ScoreDifference

__all__ = ["add_to", "compare"]

Runs = Annotated[list[str], typer.Argument(help="Names of two or more runs; the first is the base.", metavar="A B…")]


def add_to(cli: typer.Typer) -> None:
    """Add the verb."""
    cli.command(name="compare")(compare)


def compare(context: typer.Context, runs: Runs, store: StoreOption = None, json_output: Json = False) -> None:
    """Name what differs between runs, and give the difference of their scores with an interval.

    The interval is over seeds where the runs have repeats (`autodl run … --repeat 3`), else over the pictures of the
    same test split (which says nothing of other seeds). More than one differing factor is a warning (exit 0).

    Examples:

        autodl runs compare base no-augment

        autodl runs compare base lr-1e-3 lr-1e-2 --json
    """
    from autodl_ray.pipeline.history import open_run
    from autodl_ray.pipeline.history.compare import compare as compare_runs

    console: Console = context.obj
    if len(set(runs)) < 2:
        raise InputError("A comparison needs two different runs.", seen=" ".join(runs), hint="autodl runs list")
    folder = store_folder(store)
    found = compare_runs([open_run(folder, name) for name in runs])
    _factors(found, console)
    _scores(found, console)
    for text in found.warnings:
        console.print(f"warning: {text}")
    console.result(_document(found))


def _factors(found: Comparison, console: Console) -> None:
    if not found.factors:
        console.print("nothing differs that was written down: spec, data, winner's settings and software are the same")
        return
    rows = [[factor.name, factor.kind, *(_value(value) for value in factor.values)] for factor in found.factors]
    left = ("kind", *found.runs)
    console.table("factors that differ", ["factor", "kind", *found.runs], rows, left=left)
    console.print()


def _scores(found: Comparison, console: Console) -> None:
    rows = [
        [f"{row.run} − {found.runs[0]}", row.split, row.metric.replace("_", " "), f"{row.first:.4f}", f"{row.this:.4f}",
         f"{row.this - row.first:+.4f}", _interval(row)]
        for row in found.differences
    ]  # fmt: skip
    if not rows:
        console.print("there are no scores to compare yet")
        return
    columns = ["runs", "split", "metric", "first", "second", "difference", "interval"]
    console.table("difference of the scores", columns, rows, left=("split", "metric", "interval"))
    console.print()


def _interval(row: ScoreDifference) -> str:
    found = row.interval
    if found is None:
        return f"none: {row.why_none}"
    chance = f", McNemar p = {found.p_value:.3g}" if found.p_value is not None and row.metric == "accuracy" else ""
    verdict = "" if found.is_clear else "; 0 is inside: no difference is shown"
    return f"{found.low:+.4f} to {found.high:+.4f} ({found.confidence:.0%}, {found.method}{chance}){verdict}"


def _value(value: Any) -> str:
    if value is None:
        return "–"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _document(found: Comparison) -> dict[str, Any]:
    return {
        "runs": list(found.runs),
        "factors": [asdict(factor) for factor in found.factors],
        "differences": [
            {**asdict(row), "difference": row.this - row.first, "interval": row.interval and row.interval.to_json()}
            for row in found.differences
        ],
        "warnings": list(found.warnings),
    }
