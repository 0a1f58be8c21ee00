"""`autodl data`: what a folder holds, and writing it in another format."""

from __future__ import annotations

import typer

__all__ = ["add_to"]


def add_to(cli: typer.Typer) -> None:
    """Add the verbs to `autodl data`."""
