"""One request while it is under way: what came, and what is found out about it for the log and the metrics."""

from __future__ import annotations

import uuid
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope

from autodl_ray.serve.http.answers import Refusal

__all__ = ["Call"]

_MAX_ID = 128
_YES, _NO = frozenset({"1", "true", "yes", "on", ""}), frozenset({"0", "false", "no", "off"})


class Call:
    """One HTTP request.

    Attributes:
        method: In capitals.
        path: Without the prefix the service is mounted at.
        headers: Names in lower case; of a repeated one the last.
        receive: Of ASGI.
        route: Pattern of the route, for the metrics.
        key: Name of the API key, or "".
        model: Who answered.
        version: Of that model.
        pictures: Pictures in the request.
        parameters: What the path says.
    """

    __slots__ = (
        "_query", "_query_string", "bytes_in", "headers", "key", "method", "model", "parameters", "path", "pictures",
        "receive", "route", "version",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.receive = receive
        self.route = "other"
        self.key = ""
        self.model = self.version = ""
        self.pictures = self.bytes_in = 0
        self.parameters: dict[str, str] = {}
        self._query_string: bytes = scope.get("query_string", b"")
        self._query: dict[str, str] | None = None

    @property
    def id(self) -> str:
        """The request id that came, or a new one."""
        given = self.headers.get(b"x-request-id")
        if not given:
            self.headers[b"x-request-id"] = given = uuid.uuid4().hex.encode()
        return given[:_MAX_ID].decode("ascii", "replace")

    @property
    def sticky_key(self) -> str:
        """What decides on the version where there are several: `x-request-key`, else the request id."""
        given = self.headers.get(b"x-request-key")
        return given.decode("latin-1") if given else self.id

    def header(self, name: bytes) -> str:
        """Return a header as text, or ""."""
        return self.headers.get(name, b"").decode("latin-1")

    def query(self, name: str) -> str | None:
        """Return a parameter of the query, or None."""
        if self._query is None:
            text = self._query_string.decode("latin-1")
            try:
                self._query = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=50)) if text else {}
            except ValueError as error:
                raise Refusal(400, "The query has too many parameters.") from error
        return self._query.get(name)

    def whole_number(self, name: str, default: int) -> int:
        """Return a parameter of the query that counts something, at least 1.

        Raises:
            Refusal: 400, it is no such number.
        """
        text = self.query(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
            raise Refusal(400, f"{name} is a whole number, 1 or more, got {text[:40]!r}.")
        return int(text)

    def flag(self, name: str) -> bool:
        """Return a parameter of the query that is on or off.

        Raises:
            Refusal: 400, it is neither.
        """
        text = self.query(name)
        value = "off" if text is None else text.lower()
        if value not in _YES | _NO:
            raise Refusal(400, f"{name} is true or false, got {value[:40]!r}.")
        return value in _YES
