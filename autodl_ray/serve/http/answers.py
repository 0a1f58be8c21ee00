"""What goes back over HTTP: answers, and refusals that are `{"error": …}` with exactly `application/json`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["JSON_TYPE", "Answer", "Refusal", "error_answer", "json_answer", "one_line"]

JSON_TYPE = b"application/json"
"""Without a charset: KServe's client shows the text of an error only then."""

Header = tuple[bytes, bytes]


@dataclass(slots=True)
class Answer:
    """One answer.

    Attributes:
        body: Whole.
        status: Of HTTP.
        content_type: Of the body.
        headers: Further ones, names in lower case.
    """

    body: bytes
    status: int = 200
    content_type: bytes = JSON_TYPE
    headers: list[Header] = field(default_factory=list)


class Refusal(Exception):
    """A request that is not answered, and why.

    Args:
        status: 4xx, or 503 while there is nothing to answer with.
        message: For the client: what was wrong, and what is accepted.
        headers: Such as Retry-After.
    """

    def __init__(self, status: int, message: str, headers: list[Header] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or []


def json_answer(document: Any, status: int = 200) -> Answer:
    """Return ``document`` as JSON."""
    return Answer(_dumps(document), status)


def error_answer(status: int, message: str, headers: list[Header] | None = None) -> Answer:
    """Return ``{"error": message}``."""
    return Answer(_dumps({"error": message}), status, headers=list(headers or ()))


def one_line(value: Any, most: int = 60) -> str:
    """Return ``repr(value)``, cut: what a client sent is shown, but never all of it."""
    text = repr(value) if not isinstance(value, list | dict) or len(value) < most else f"{type(value).__name__} of many"
    return text if len(text) <= most else text[: most - 3] + "…"


def _dumps(document: Any) -> bytes:
    # A lone surrogate of a name or a JSON string cannot be UTF-8: it becomes "?".
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
