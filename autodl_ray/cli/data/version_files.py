"""`autodl data`: the files of versions: writing them out, checking, cleaning up, and moving to a remote place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autodl_ray.cli.console import Console, ConsoleProgress
from autodl_ray.cli.data.common import Json, StoreOption, open_store

__all__ = ["add_to"]

_VERSION = "A tag, latest, an id, or its first 6 or more digits."


def add_to(cli: typer.Typer) -> None:
    """Add the verbs to `autodl data`."""
    cli.command(name="checkout")(_checkout)


def _checkout(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(help=_VERSION)],
    folder: Annotated[Path, typer.Argument(help="Where to; made when missing.")],
    force: Annotated[bool, typer.Option("--force", help="Replace files that have other bytes.")] = False,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Write the files of a version into a folder, as they were.

    Files with equal bytes are left alone; so are files of other names.

    Examples:

        autodl data checkout raw photos-as-they-came/

        autodl data checkout latest photos/ --force
    """
    from autodl_ray.data.versions import Refs
    from autodl_ray.data.versions.checkout import checkout

    console: Console = context.obj
    place = open_store(store)
    entry = Refs(place).resolve(ref)
    done = checkout(entry, folder, store=place, progress=ConsoleProgress(console), force=force)
    console.print(f"{entry.short} → {folder}: {done.written} files written, {done.equal} were equal")
    if done.others:
        console.print(f"  {done.others} other files in the folder are left as they are")
    console.result({"version": entry.version, "folder": str(folder), **vars(done)})
