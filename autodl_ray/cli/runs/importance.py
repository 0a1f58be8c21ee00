"""`autodl runs importance`: which settings mattered in a sweep, and how sure that is."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autodl_ray.cli.console import Console
from autodl_ray.cli.runs.common import Json, StoreOption, store_folder
from autodl_ray.errors import StageError

if TYPE_CHECKING:
    from autodl_ray.pipeline.history.importance import Importance

__all__ = ["Method", "add_to", "importance"]


class Method(StrEnum):
    """How the importance is found."""

    fanova = "fanova"
    mdi = "mdi"
    ped_anova = "ped_anova"


def add_to(cli: typer.Typer) -> None:
    """Add the verb."""
    cli.command(name="importance")(importance)


def importance(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="Name of the run.", show_default=False)],
    method: Annotated[
        Method,
        typer.Option(
            help="fanova: variance explained; mdi: decrease of impurity; ped_anova: what sets the best apart."
        ),
    ] = Method.fanova,
    at_epoch: Annotated[
        int | None, typer.Option(min=1, help="Compare trials at this epoch, and leave out those stopped before.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the bars into a .png or .svg file.")] = None,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Show how much each searched setting mattered, with the spread over resampled trials.

    A setting with a condition is judged among the trials that have it. Too few trials end with exit 1.

    Examples:

        autodl runs importance photos-3f2a1c

        autodl runs importance photos-3f2a1c --method ped_anova --plot importance.svg
    """
    from autodl_ray.pipeline.history import open_run
    from autodl_ray.pipeline.history.importance import importance as find_importance

    console: Console = context.obj
    sweep = open_run(store_folder(store), run).search()
    if sweep is None:
        raise StageError("The run has no trials yet.", seen=run, hint="autodl runs show " + run)
    report = find_importance(sweep, method=method.value, at_epoch=at_epoch)
    title = f"importance for {report.metric.replace('_', '-')}, {report.trials} trials of {sweep.key}"
    console.table(
        title, ["setting", "share", "5 % to 95 %", "trials", "", "only where"],
        [_cells(row) for row in report.rows], left=("", "only where"),
    )  # fmt: skip
    console.print(f"share: {report.method}; spread over resampled trials")
    for note in report.notes:
        console.print(f"note: {note}")
    if plot is not None:
        from autodl_ray.pipeline.history.plots import draw_importance, save

        save(draw_importance(report), plot)
        console.print(f"plot: {plot}")
    console.result({"run": run, "sweep": sweep.key, **report.to_json(), "plot": None if plot is None else str(plot)})


def _cells(row: Importance) -> list[str]:
    only = "; ".join(f"{k} is {' or '.join(map(str, v))}" for k, v in row.when.items())
    bar = "█" * round(24 * row.value)
    return [row.name, f"{row.value:.2f}", f"{row.low:.2f} to {row.high:.2f}", str(row.trials), bar, only]
