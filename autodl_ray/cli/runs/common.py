"""What the verbs of `autodl runs` share: where the store is, and how figures are written."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodl_ray.errors import StoreError

if TYPE_CHECKING:
    from autodl_ray.cli.console import Console

__all__ = ["Json", "StoreOption", "note_problems", "params_text", "score_text", "store_folder", "when_text"]

StoreOption = Annotated[
    str | None, typer.Option("--store", help="Where the runs are kept.  [default: $AUTODL_STORE or ./runs]")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def store_folder(place: str | None) -> Path:
    """Return the folder of the store that the option, the environment or the working folder names.

    Raises:
        StoreError: It is an address: working files of runs lie on a disk.
    """
    text = place or os.environ.get("AUTODL_STORE") or "runs"
    if "://" in text:
        raise StoreError("Runs are read from a folder.", seen=text, accepted="the folder of a local store")
    return Path(text).expanduser().resolve()


def score_text(value: float | None) -> str:
    """Write a score to four digits; a dash where there is none."""
    return "–" if value is None else f"{value:.4f}"


def when_text(when: float) -> str:
    """Write a Unix time as local time to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when)) if when else "–"


def params_text(params: Mapping[str, Any]) -> str:
    """Write settings as people do: ``lr 0.00123, optimizer sgd``."""
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in params.items())


def note_problems(console: Console, problems: Mapping[str, tuple[str, ...]]) -> None:
    """Say below a table which runs have damaged files."""
    for name, texts in problems.items():
        for text in texts:
            console.print(f"damaged: {name}: {text}")
