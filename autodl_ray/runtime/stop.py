"""The wish to stop: set by Ctrl-C on the driver, seen by every process that shares the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["StopFlag"]


@dataclass(frozen=True)
class StopFlag:
    """A file whose existence asks every stage and worker to finish well, and soon.

    Picklable: a training loop in another process looks at the same file between two steps.
    """

    path: Path

    def set(self) -> None:
        """Ask for the stop."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def clear(self) -> None:
        """Take the wish back (at the start of a new attempt)."""
        self.path.unlink(missing_ok=True)

    def is_set(self) -> bool:
        """Whether the stop was asked for."""
        return self.path.exists()
