"""The journal of a sweep: one append-only file of JSON lines, from which the whole state is derived."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from autodl_ray.errors import StoreError

__all__ = ["JOURNAL_VERSION", "Journal", "plain", "read_journal"]

JOURNAL_VERSION = 1


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the events of a journal; [] when there is none.

    A last line that was torn by a kill is left out.

    Raises:
        StoreError: A line before the last is damaged, or the journal is of a newer version.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn, or empty
        try:
            event = json.loads(line)
            event["event"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                "The journal of a sweep is damaged.",
                seen=f"{path}, line {number}",
                hint="delete it to begin the sweep anew, or restore it from a copy",
            ) from error
        events.append(event)
    if events and events[0].get("version", JOURNAL_VERSION) > JOURNAL_VERSION:
        raise StoreError(
            "The journal of a sweep is of a newer version than this one reads.",
            seen=f"{path}: version {events[0]['version']}",
            accepted=f"version up to {JOURNAL_VERSION}",
            hint="upgrade autodl_ray",
        )
    return events


class Journal:
    """The one writer of a journal; use as a context manager.

    Every line reaches the kernel at once, which is what survives a ``kill -9``; lines that open or close a trial
    are also forced to the disk, and the epochs in between at most once a second. What is written in one
    :meth:`together` is forced to the disk once, at its end.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        _cut_torn_line(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._synced = 0.0
        self._waits = self._owes = False

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Force what is written inside to the disk once, at the end; not to be nested.

        Raises:
            StoreError: As :meth:`append`, at the end.
        """
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
            if self._owes:
                self._force()

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one event.

        Raises:
            StoreError: The disk is full or gone.
        """
        line = json.dumps(dict(event), separators=(",", ":"), default=plain) + "\n"
        try:
            os.write(self._file, line.encode())
        except OSError as error:
            raise self._unwritten(error) from error
        if event["event"] != "epoch" or time.monotonic() - self._synced > 1.0:
            self._owes = True
        if self._owes and not self._waits:
            self._force()

    def _force(self) -> None:
        try:
            os.fdatasync(self._file)
        except OSError as error:
            raise self._unwritten(error) from error
        self._owes, self._synced = False, time.monotonic()

    def _unwritten(self, error: OSError) -> StoreError:
        return StoreError(
            "The journal of the sweep could not be written.",
            seen=f"{self._path}: {error}",
            hint="free some space and run the same line again: finished trials are kept",
        )


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    raw = path.read_bytes()
    whole = raw.rfind(b"\n") + 1
    if whole < len(raw):
        os.truncate(path, whole)


def plain(value: Any) -> Any:
    """Numbers of numpy and torch as Python's own; everything else as text."""
    return value.item() if hasattr(value, "item") else str(value)
