"""`autodl data`: finding faults, and a new version without them."""

from __future__ import annotations

import typer

__all__ = ["add_to"]


def add_to(cli: typer.Typer) -> None:
    """Add the verbs to `autodl data`."""
