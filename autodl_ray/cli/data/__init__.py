"""`autodl data`: formats, versions and cleaning of data sets."""

from __future__ import annotations

from typing import Any

import typer

__all__ = ["data_app"]


def data_app() -> Any:
    """Build the sub-commands of `autodl data`."""
    from autodl_ray.cli.data import cleaning, formats, versions

    cli = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help=_help())
    for part in (formats, cleaning, versions):
        part.add_to(cli)
    return cli


def _help() -> str:
    return """Read, check, clean and version data sets.

    Examples:

        autodl data detect photos/

        autodl data check photos/ --html report.html

        autodl data snapshot photos/ --tag first
    """
