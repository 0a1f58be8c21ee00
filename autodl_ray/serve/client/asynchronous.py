"""The client for programs on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

import httpx

from autodl_ray.serve.client.connection import connection
from autodl_ray.serve.client.retries import Retries, Tries
from autodl_ray.serve.client.wire import (
    Asked,
    Picture,
    as_answer,
    at_least_one,
    batches,
    bytes_of,
    in_order,
    models_of,
    prediction_of,
    predictions_of,
    request_of,
)
from autodl_ray.serve.client.words import ModelFacts, Prediction, RequestRefused

__all__ = ["AsyncClient"]


class AsyncClient:
    """Asks a service, see :class:`~autodl_ray.serve.client.Client`.

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

    Raises:
        InputError: The address or the key is not usable, or a file cannot be read.

    Example:
        >>> async with AsyncClient("http://127.0.0.1:8000") as client:  # doctest: +SKIP
        ...     print((await client.predict("a.jpg")).name)
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
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        self._asked = Asked(model, version)
        self._retries = retries or Retries()
        self._sleep = sleep
        given = connection(self.url, api_key=api_key, api_key_file=api_key_file, timeout_s=timeout_s, verify=verify)
        self._http = httpx.AsyncClient(**given, transport=transport)

    async def predict(self, picture: Picture, *, top_k: int = 5, heatmap: bool = False) -> Prediction:
        """Classify one picture.

        Args:
            picture: Bytes, a path, an open file, a Pillow image, (H, W, 3) uint8, or a web address where the service
                fetches them.
            top_k: Classes in the answer.
            heatmap: Whether to say where the model looks; that takes 50 times as long.

        Raises:
            InputError: The picture cannot be read, or is nothing that is accepted.
            RequestRefused: The picture is none, there is no such model, the key is wrong, …
            ServiceUnavailable: There was no answer, as often as was tried.
        """
        asked = Asked(self._asked.model, self._asked.version, top_k, heatmap)
        data = await asyncio.to_thread(bytes_of, picture)
        return prediction_of(await self._send("POST", asked.path, **request_of([data])))

    @overload
    async def predict_many(
        self, pictures: Iterable[Picture], *, top_k: int = ..., batch: int = ..., workers: int = ...
    ) -> list[Prediction]: ...

    @overload
    async def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        top_k: int = ...,
        batch: int = ...,
        workers: int = ...,
        on_error: Literal["return"],
    ) -> list[Prediction | RequestRefused]: ...

    async def predict_many(
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
            InputError: A picture cannot be read, or is nothing that is accepted; ``batch`` or ``workers`` is below 1.
            RequestRefused: A picture is none (with ``on_error="raise"``), the key is wrong, …
            ServiceUnavailable: There was no answer, as often as was tried.
        """
        at_least_one(batch=batch, workers=workers)
        asked = Asked(self._asked.model, self._asked.version, top_k)
        slots = asyncio.Semaphore(workers)

        async def send(some: list[bytes | str]) -> list[Prediction | RequestRefused]:
            try:
                return predictions_of(await self._send("POST", asked.path, **request_of(some)), len(some))
            except RequestRefused as refused:
                return as_answer(refused, some)
            finally:
                slots.release()

        tasks: list[asyncio.Task[list[Prediction | RequestRefused]]] = []
        rest = batches(map(bytes_of, pictures), batch)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await slots.acquire()
                    if (some := await asyncio.to_thread(next, rest, None)) is None:  # files are read as they are needed
                        break
                    tasks.append(group.create_task(send(some)))
        except ExceptionGroup as several:  # the others were cancelled
            first = several.exceptions[0]
        else:
            return in_order([task.result() for task in tasks], on_error)
        raise first

    async def models(self) -> list[ModelFacts]:
        """Return every version of every model, the default first."""
        return models_of(await self._send("GET", "/v1/models"))

    async def is_ready(self) -> bool:
        """Whether the service answers; asks once."""
        try:
            return (await self._http.get("/v2/health/ready")).status_code == 200
        except httpx.HTTPError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, method: str, path: str, **body: Any) -> httpx.Response:
        """Send a request until it is answered or the patience ends."""
        tries = Tries(self._retries, self.url)
        while True:
            try:
                response = await self._http.request(method, path, **body)
                if response.status_code == 200:
                    return response
                seconds = tries.wait(response)
            except httpx.HTTPError as error:
                seconds = tries.wait(error)
            await self._sleep(seconds)
