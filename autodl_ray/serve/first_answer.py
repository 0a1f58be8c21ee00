"""Asking a service that was just started, over the way its clients take, until it answers."""

from __future__ import annotations

import http.client
import io
import json
import ssl
import time
from typing import Any

from autodl_ray.errors import StageError

__all__ = ["FIRST_ID", "Address", "await_answer"]

FIRST_ID = "autodl-first-answer"
"""Id of the service's own requests, which are never recorded."""

_WAIT_S = 30.0
_POLL_S = 0.1


class Address:
    """Where this machine reaches a service.

    Args:
        host: The address that the service listens on.
        port: Of it.
        tls: Whether it speaks TLS.
    """

    def __init__(self, host: str, port: int, *, tls: bool = False) -> None:
        self.host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self.port = port
        self.tls = tls

    @property
    def url(self) -> str:
        """The address as a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.tls else ''}://{host}:{self.port}"

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, api_key: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Send one request; return the status and the JSON of the answer.

        Raises:
            OSError: Nobody answers there.
        """
        connection = self._connection()
        try:
            key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
            connection.request(method, path, body, {"X-Request-ID": FIRST_ID, **key})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        try:
            return response.status, json.loads(content)
        except ValueError:
            return response.status, {"error": content[:200].decode(errors="replace")}

    def _connection(self) -> http.client.HTTPConnection:
        if not self.tls:
            return http.client.HTTPConnection(self.host, self.port, timeout=30)
        # The certificate is for the name that clients use; here our own port is asked by its address.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(self.host, self.port, timeout=30, context=context)


def await_answer(address: Address, model: str, *, api_key: str | None, only_health: bool = False) -> None:
    """Send a small picture to one model and expect its answer.

    Args:
        address: Of the service.
        model: Its name.
        api_key: Sent along.
        only_health: Ask for the health alone: where only a file of keys' hashes is known, there is no key to send.

    Raises:
        StageError: There was no answer within 30 s, or another one.
    """
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            if only_health:
                status, answer = address.ask("GET", "/v2/health/ready")
            else:
                status, answer = address.ask("POST", f"/predict?model={model}&top_k=1", _small_png(), api_key=api_key)
        except OSError as error:  # the port is not open yet
            status, answer = 0, {"error": str(error)}
        if status == 200:
            return
        if status not in (0, 404, 503) or time.monotonic() > deadline:
            raise StageError("The service started but does not answer.", seen=f"{status}: {answer.get('error')}")
        time.sleep(_POLL_S)


def _small_png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (127, 127, 127)).save(buffer, "PNG")
    return buffer.getvalue()
