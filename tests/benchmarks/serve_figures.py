"""What the benchmarks of serving share: their options, and figures as lines or JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["options", "show"]


def options(description: str | None, *, port: int) -> argparse.ArgumentParser:
    """Return a parser that knows ``--port`` and ``--json``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=port)
    parser.add_argument("--json", action="store_true")
    return parser


def show(figures: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a figure a line, or all as JSON."""
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<28}{value}")
