"""Which handler answers which path: exact paths by a look-up, patterns one after the other."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from autodl_ray.serve.http.answers import Answer, Refusal
from autodl_ray.serve.http.calls import Call

__all__ = ["Handler", "Need", "Route", "Router"]

Handler = Callable[[Call], Awaitable[Answer]]
Need = Literal["open", "predict", "admin"]


@dataclass(frozen=True)
class Route:
    """One path and method.

    Attributes:
        method: GET (which answers HEAD too) or POST.
        pattern: Path; ``{name}`` stands for anything without a slash.
        handler: Who answers.
        need: Scope that the API key must have; ``open`` needs no key.
    """

    method: str
    pattern: str
    handler: Handler
    need: Need = "predict"


class Router:
    """All routes of the application."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        patterns: dict[str, dict[str, Route]] = {}
        for route in routes:
            table = patterns if "{" in route.pattern else self._exact
            table.setdefault(route.pattern, {})[route.method] = route
        self._patterns = [(_expression(pattern), methods) for pattern, methods in patterns.items()]

    def find(self, call: Call) -> Route:
        """Return the route, and enter what the path says into ``call.parameters``.

        Raises:
            Refusal: 404 for an unknown path, 405 for a method that it does not have.
        """
        methods = self._exact.get(call.path)
        if methods is None:
            for expression, candidates in self._patterns:
                if (match := expression.fullmatch(call.path)) is not None:
                    call.parameters = match.groupdict()
                    methods = candidates
                    break
        if methods is None:
            raise Refusal(
                404, f"There is no {call.path[:80]}. There are /, /predict, /models, /v1/models, /v2 and /docs."
            )
        route = methods.get("GET" if call.method == "HEAD" else call.method)
        if route is None:
            allowed = sorted(methods) + (["HEAD"] if "GET" in methods else [])
            text = ", ".join(allowed)
            raise Refusal(405, f"{call.path[:80]} answers {text}, not {call.method[:20]}.", [(b"allow", text.encode())])
        return route


def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", pattern)
    return re.compile("".join(f"(?P<{part}>[^/]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)))
