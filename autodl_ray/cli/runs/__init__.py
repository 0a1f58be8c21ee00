"""`autodl runs`: looking at the runs of a store, comparing them, and taking their figures out."""

from __future__ import annotations

from typing import Any

import typer

__all__ = ["runs_app"]


def runs_app() -> Any:
    """Build the sub-commands of `autodl runs`."""
    from autodl_ray.cli.runs import comparing, exporting, importance, listing, showing, watch

    cli = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help=_help())
    for part in (listing, showing, watch, comparing, importance, exporting):
        part.add_to(cli)
    return cli


def _help() -> str:
    return """List, show and compare runs, and take their figures out.

    Examples:

        autodl runs list

        autodl runs show photos-3f2a1c --trials

        autodl runs compare base no-augment
    """
