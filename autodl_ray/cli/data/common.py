"""What the verbs of `autodl data` share: the store, the surroundings, and how sizes are written."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autodl_ray.cli.console import Console, ConsoleProgress

if TYPE_CHECKING:
    from autodl_ray.artifacts import Store
    from autodl_ray.runtime import Context

__all__ = ["Json", "StoreOption", "human_bytes", "many_small_objects", "open_store", "surroundings"]

StoreOption = Annotated[
    str | None, typer.Option("--store", help="Where versions are kept.  [default: $AUTODL_STORE or ./runs]")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def open_store(place: str | None) -> Store:
    """Open the store that the option, the environment or the working folder names."""
    from autodl_ray.artifacts import Store

    return Store(place or os.environ.get("AUTODL_STORE") or "runs")


def surroundings(store: Store, console: Console, *, seed: int = 0) -> Context:
    """Return the context of a verb that is no run: no budget, and Ctrl-C ends it at once."""
    from autodl_ray.runtime import Budget, Context, StopFlag

    stop = StopFlag(Path(store.root) / "stop-data")
    return Context(store, "", seed, Budget(float("inf")), ConsoleProgress(console), stop)


@contextmanager
def many_small_objects() -> Iterator[None]:
    """Hold off the search for cycles while hundreds of thousands of rows are made: it took a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def human_bytes(size: float) -> str:
    """Write a size as people do.

    Example:
        >>> human_bytes(1_500_000)
        '1.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
