"""Under which host names the service answers, and pages of which origins may ask it."""

from __future__ import annotations

from collections.abc import Sequence

from autodl_ray.serve.http.answers import Answer, Header, Refusal
from autodl_ray.serve.http.calls import Call

__all__ = ["LOOPBACK_HOSTS", "Origins"]

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
"""Names under which a service on loopback is asked; another name is a web page that reaches for it."""

_EXPOSED = b"x-request-id, x-model, x-model-version, retry-after, inference-header-content-length"
_ALLOWED = (
    b"authorization, content-type, content-encoding, inference-header-content-length, x-request-id, x-request-key"
)


class Origins:
    """Host names and origins.

    Args:
        hosts: Accepted host names, without the port; None: any.
        allowed: Origins whose pages may ask and read (CORS), such as ``https://shop.example``, or ``*``.
    """

    def __init__(self, hosts: Sequence[str] | None, allowed: Sequence[str]) -> None:
        self._hosts = None if hosts is None else frozenset(hosts)
        self._allowed = frozenset(origin.rstrip("/").encode() for origin in allowed)

    def check(self, call: Call) -> None:
        """Refuse foreign host names, and on loopback pages of foreign origins.

        Raises:
            Refusal: 403.
        """
        if self._hosts is None:
            return
        if _host_name(call.header(b"host")) not in self._hosts:
            raise Refusal(403, "This service answers on loopback only, under the names 127.0.0.1 and localhost.")
        # A page from elsewhere may send a picture without asking first; it could not read the answer, but keep us busy.
        origin = call.headers.get(b"origin")
        if origin is not None and not self._permits(origin):
            name = _host_name(origin.decode("latin-1").partition("://")[2])
            if name not in self._hosts:
                raise Refusal(403, "Pages of this origin may not ask this service.")

    def headers(self, call: Call) -> list[Header]:
        """Return the CORS headers of an answer: none, unless the origin may read it."""
        origin = call.headers.get(b"origin")
        if not self._allowed:
            return []
        vary: list[Header] = [(b"vary", b"origin")]
        if origin is None or not self._permits(origin):
            return vary
        return [*vary, (b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)]

    def preflight(self, call: Call) -> Answer | None:
        """Answer the question of a browser whether a page may ask; None when this is no such question."""
        asked = call.method == "OPTIONS" and b"access-control-request-method" in call.headers
        if not asked or not self._permits(call.headers.get(b"origin", b"")):
            return None
        headers: list[Header] = [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", _ALLOWED),
            (b"access-control-max-age", b"600"),
        ]
        return Answer(b"", 200, b"text/plain", headers)

    def _permits(self, origin: bytes) -> bool:
        return origin in self._allowed or b"*" in self._allowed


def _host_name(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()
