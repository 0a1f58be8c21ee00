"""The client for ordinary programs; it may be used by several threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

import httpx

from autodl_ray.serve.client.retries import Retries
from autodl_ray.serve.client.wire import (
    Asked,
    Picture,
    api_key_of,
    batches,
    bytes_of,
    chance,
    failure,
    predictions_of,
    request_of,
)
from autodl_ray.serve.client.words import ModelFacts, Prediction, RequestRefused

__all__ = ["Client"]


class Client:
    """Asks a service.

    Args:
        url: Where it answers.
        api_key: Else from ``api_key_file``, else from the environment variable ``AUTODL_API_KEY``.
        api_key_file: File with the key.
        model: Name of the model; None: the service's default.
        version: Of the model; None: as the service decides.
        timeout_s: Seconds for one try.
        retries: How patient it is; Retry-After is honoured.
        verify: Check TLS certificates; or the path of a certificate to trust.
        transport: Of httpx, in place of the network.
        sleep: Waits for some seconds.

    Example:
        >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
        ...     print(client.predict("a.jpg").name)
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        api_key_file: str | Path | None = None,
        model: str | None = None,
        version: str | None = None,
        timeout_s: float = 60.0,
        retries: Retries | None = None,
        verify: bool | str = True,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        key = api_key_of(api_key, api_key_file)
        self.url = url.rstrip("/")
        self._asked = Asked(model, version)
        self._retries = retries or Retries()
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=self.url,
            headers={} if key is None else {"authorization": f"Bearer {key}"},
            timeout=timeout_s,
            verify=_trust(verify),
            transport=transport,
        )

    def predict(self, picture: Picture, *, top_k: int = 5, heatmap: bool = False) -> Prediction:
        """Classify one picture.

        Args:
            picture: Bytes, a path, an open file, a Pillow image, (H, W, 3) uint8, or a web address where the service
                fetches them.
            top_k: Classes in the answer.
            heatmap: Whether to say where the model looks; that takes 50 times as long.

        Raises:
            RequestRefused: The picture is none, there is no such model, the key is wrong, …
            ServiceUnavailable: There was no answer, as often as was tried.
        """
        asked = Asked(self._asked.model, self._asked.version, top_k, heatmap)
        (found,) = predictions_of(self._send("POST", asked.path, **request_of([bytes_of(picture)])))
        if isinstance(found, RequestRefused):
            raise found
        return found

    @overload
    def predict_many(
        self, pictures: Iterable[Picture], *, top_k: int = ..., batch: int = ..., workers: int = ...
    ) -> list[Prediction]: ...

    @overload
    def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        top_k: int = ...,
        batch: int = ...,
        workers: int = ...,
        on_error: Literal["return"],
    ) -> list[Prediction | RequestRefused]: ...

    def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        top_k: int = 5,
        batch: int = 16,
        workers: int = 4,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Any:
        """Classify many pictures: several a request, several requests at a time, answers in the order of the pictures.

        Args:
            pictures: See :meth:`predict`.
            top_k: Classes in each answer.
            batch: Most pictures in a request.
            workers: Requests at a time.
            on_error: What becomes of a picture that is refused: the first is raised, or each is returned in its place.

        Raises:
            RequestRefused: A picture is none (with ``on_error="raise"``), the key is wrong, …
            ServiceUnavailable: There was no answer, as often as was tried.
        """
        asked = Asked(self._asked.model, self._asked.version, top_k)

        def send(some: list[bytes | str]) -> list[Prediction | RequestRefused]:
            try:
                return predictions_of(self._send("POST", asked.path, **request_of(some)))
            except RequestRefused as refused:
                if len(some) > 1 or refused.status != 400:
                    raise
                return [refused]

        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(send, batches(map(bytes_of, pictures), batch)))
        found = [answer for part in parts for answer in part]
        if on_error == "raise" and (bad := next((a for a in found if isinstance(a, RequestRefused)), None)):
            raise bad
        return found

    def models(self) -> list[ModelFacts]:
        """Return every version of every model, the default first."""
        return [ModelFacts.of(entry) for entry in self._send("GET", "/v1/models").json()["models"]]

    def is_ready(self) -> bool:
        """Whether the service answers; asks once."""
        try:
            return self._http.get("/v2/health/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, method: str, path: str, **body: Any) -> httpx.Response:
        """Send a request until it is answered or the patience ends."""
        tried, waited = 0, 0.0
        while True:
            response, problem = None, None
            tried += 1
            try:
                response = self._http.request(method, path, **body)
            except httpx.TransportError as error:
                problem = error
            except httpx.HTTPError as error:
                raise failure(None, error, url=self.url, tried=tried) from error
            if response is not None and response.status_code == 200:
                return response
            status = 0 if response is None else response.status_code
            after = None if response is None else response.headers.get("retry-after")
            wait = self._retries.wait(tried, status=status, retry_after=after, waited_s=waited, chance=chance)
            if wait is None:
                raise failure(response, problem, url=self.url, tried=tried)
            waited += wait
            self._sleep(wait)


def _trust(verify: bool | str) -> Any:
    if isinstance(verify, bool):
        return verify
    import ssl

    return ssl.create_default_context(cafile=verify)
