"""`autodl data`: snapshots of a data set, by content."""

from __future__ import annotations

import typer

__all__ = ["add_to"]


def add_to(cli: typer.Typer) -> None:
    """Add the verbs to `autodl data`."""
