"""`autodl runs export`: trials and curves as tables, and the plots of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autodl_ray.cli.console import Console
from autodl_ray.cli.runs.common import Json, StoreOption, store_folder

__all__ = ["add_to", "export"]


def add_to(cli: typer.Typer) -> None:
    """Add the verb."""
    cli.command(name="export")(export)


def export(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="Name of the run.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="Ends in .csv, .parquet or .json.", show_default=False)],
    plots: Annotated[
        Path | None,
        typer.Option(help="Folder for parallel coordinates, importance, history and slices, as PNG and SVG."),
    ] = None,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Write the trials of a run and their curves into files; curves go beside FILE as NAME-curves.

    Examples:

        autodl runs export photos-3f2a1c trials.csv

        autodl runs export photos-3f2a1c trials.parquet --plots plots/
    """
    from autodl_ray.pipeline.history import open_run
    from autodl_ray.pipeline.history.tables import write_tables

    console: Console = context.obj
    history = open_run(store_folder(store), run)
    written = write_tables(history, file)
    notes: list[str] = []
    if plots is not None:
        from autodl_ray.pipeline.history.plots import write_plots

        drawn, notes = write_plots(history, plots)
        written += drawn
    for path in written:
        console.print(f"wrote {path}")
    for note in notes:
        console.print(f"note: {note}")
    console.result({"run": run, "files": [str(p) for p in written], "notes": notes})
