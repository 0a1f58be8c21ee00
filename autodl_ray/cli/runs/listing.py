"""`autodl runs list`: every run of a store in one line."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodl_ray.cli.console import Console, human_seconds
from autodl_ray.cli.runs.common import Json, StoreOption, note_problems, score_text, store_folder, when_text

if TYPE_CHECKING:
    from autodl_ray.pipeline.history import RunSummary

__all__ = ["Order", "add_to", "list_"]


class Order(StrEnum):
    """What the runs are sorted by."""

    when = "when"
    name = "name"
    data = "data"
    validation = "validation"
    test = "test"
    time = "time"
    trials = "trials"


def add_to(cli: typer.Typer) -> None:
    """Add the verb."""
    cli.command(name="list")(list_)


def list_(
    context: typer.Context,
    sort: Annotated[Order, typer.Option(help="Best, longest or latest first; names in their order.")] = Order.when,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """List the runs of a store: data, status, best validation score, test score, time and trials.

    A damaged run is listed with what is wrong and does not stop the others (exit 0).

    Examples:

        autodl runs list

        autodl runs list --sort validation --json
    """
    from autodl_ray.pipeline.history import list_runs

    console: Console = context.obj
    runs = _sorted(list_runs(store_folder(store)), sort)
    if not runs:
        console.print("The store has no runs yet: autodl run photos/")
    else:
        columns = ["run", "data", "status", "validation", "metric", "test", "trials", "time", "when"]
        console.table("runs", columns, [_cells(run) for run in runs], left=("data", "status", "metric", "when"))
        note_problems(console, {run.name: run.problems for run in runs})
    console.result({"runs": [run.to_json() for run in runs]})


def _cells(run: RunSummary) -> list[str]:
    if run.status == "damaged":
        return [run.name, "–", run.status, *(["–"] * 6)]
    return [
        run.name,
        run.data,
        run.status,
        score_text(run.validation),
        run.metric,
        score_text(run.test),
        str(run.trials),
        human_seconds(run.seconds),
        when_text(run.when),
    ]


def _sorted(runs: list[RunSummary], order: Order) -> list[RunSummary]:
    if order in (Order.name, Order.data):
        return sorted(runs, key=lambda run: (run.data if order == Order.data else "", run.name))
    field = "seconds" if order == Order.time else order.value

    def place(run: RunSummary) -> tuple[Any, ...]:
        value = getattr(run, field)
        return (value is None, 0.0 if value is None else -value, run.name)

    return sorted(runs, key=place)
