"""`autodl data`: formats, versions and cleaning of data sets."""

from __future__ import annotations

from typing import Any

import typer

__all__ = ["data_app"]


def data_app() -> Any:
    """Build the sub-commands of `autodl data`."""
    from autodl_ray.cli.data import cleaning, formats, versions

    cli = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Read, check, clean and version data.")
    for part in (formats, cleaning, versions):
        part.add_to(cli)
    return cli
