"""What a person sees while a stage works: how far, what is best so far, how much time is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Progress", "SilentProgress", "StageProgress"]


class StageProgress(Protocol):
    """The bar of one stage."""

    def update(self, done: float, total: float | None = None, *, note: str = "") -> None:
        """Set how much is done; ``note`` says what is best so far, e.g. ``val accuracy 0.912``."""
        ...


class Progress(Protocol):
    """Where stages report; implementations: the console, and :class:`SilentProgress`."""

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[StageProgress]:
        """Open the bar of the stage ``name``."""
        ...

    def say(self, line: str) -> None:
        """Print one line that stays, e.g. the plan of a sweep."""
        ...


class _SilentStage:
    def update(self, done: float, total: float | None = None, *, note: str = "") -> None:
        """Do nothing."""


class SilentProgress:
    """Reports to nobody; keeps the lines that were said, so that a test (or a caller) can read them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[StageProgress]:
        """Yield a bar that is not shown."""
        yield _SilentStage()

    def say(self, line: str) -> None:
        """Keep the line."""
        self.lines.append(line)
