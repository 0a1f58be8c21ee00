"""Reading files that another process may be writing, or that a kill or a copy has damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["FileProblem", "read_events", "read_object", "read_rows"]


class FileProblem(Exception):
    """A file of a run cannot be used; the text names it and says why. Never shown as an error: it becomes a note."""


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None when there is no such file.

    Raises:
        FileProblem: It is no JSON object.
    """
    document = _read(path)
    if document is not None and not isinstance(document, dict):
        raise FileProblem(f"{path.name} holds no JSON object")
    return document


def read_rows(path: Path) -> list[dict[str, Any]] | None:
    """Return the JSON list of objects in a file; None when there is no such file.

    Raises:
        FileProblem: It is no such list.
    """
    document = _read(path)
    if document is not None and not (isinstance(document, list) and all(isinstance(row, dict) for row in document)):
        raise FileProblem(f"{path.name} holds no JSON list of objects")
    return document


def read_events(path: Path) -> tuple[list[dict[str, Any]], str | None]:
    """Return the events of a journal and what is wrong with it, if anything.

    The events before the first damaged line are returned; a last line without its end is only a kill's, or is
    just being written.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], None
    except OSError as error:
        return [], f"{path.name} cannot be read: {error.strerror}"
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            event = json.loads(line)
            event["event"]
        except (ValueError, KeyError, TypeError):
            return events, f"{path.name} is damaged from line {number} on"
        events.append(event)
    return events, None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None
    except OSError as error:
        raise FileProblem(f"{path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FileProblem(f"{path.name} is damaged: {error}") from error
