"""The friendly way: pictures in, the likeliest classes out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autodl_ray.errors import DatasetError
from autodl_ray.serve.answers import Answers, ServedModel, reason
from autodl_ray.serve.heatmap import heatmap
from autodl_ray.serve.http.answers import Answer, Refusal, json_answer, one_line
from autodl_ray.serve.http.body import read_body
from autodl_ray.serve.http.calls import Call
from autodl_ray.serve.http.fetch import Fetcher
from autodl_ray.serve.http.pictures import Picture, Pictures, read_pictures
from autodl_ray.serve.http.routes import Route
from autodl_ray.serve.metrics import Metrics
from autodl_ray.serve.observe.record import Recorder
from autodl_ray.spec import ServeSpec
from autodl_ray.tasks.classification import top_k

__all__ = ["Predict"]

_TOP_K = 5


@dataclass(frozen=True)
class Predict:
    """The handlers.

    Attributes:
        behind: Who answers.
        settings: Caps.
        metrics: Where pictures are counted.
        fetcher: For addresses; None: they are refused.
        recorder: Keeps some of the answers; None: none.
    """

    behind: Answers
    settings: ServeSpec
    metrics: Metrics
    fetcher: Fetcher | None
    recorder: Recorder | None = None
    _one_heatmap: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("POST", "/predict", self.predict),
            Route("POST", "/v1/models/{name}:predict", self.predict),
            Route("POST", "/v1/models/{name}/versions/{version}:predict", self.predict),
        ]

    async def predict(self, call: Call) -> Answer:
        """Answer the pictures of a request; of several a broken one fails alone."""
        started = time.perf_counter()
        model = self._model(call)
        body = await read_body(call, max_bytes=int(self.settings.max_body_mb * 1e6))
        pictures = await read_pictures(call, body, max_pictures=self.settings.max_pictures, fetcher=self.fetcher)
        call.pictures = len(pictures.items)
        k, with_map = _options(call, pictures)
        if pictures.shape in ("many", "instances"):
            if with_map:
                raise Refusal(400, "A heatmap is made for one picture a request.")
            results = await asyncio.gather(*(self._one_of_many(call, model, item, k) for item in pictures.items))
            found: dict[str, Any] = {"results" if pictures.shape == "many" else "predictions": results}
        else:
            found = await self._one(call, model, pictures.items[0], k, with_map)
        milliseconds = round((time.perf_counter() - started) * 1000, 2)
        return json_answer({**model.facts(), **found, "ms": milliseconds})

    async def _one(self, call: Call, model: ServedModel, picture: Picture, k: int, with_map: bool) -> dict[str, Any]:
        if picture.fault is not None:
            self._count(model, "refused")
            raise Refusal(400, picture.fault)
        try:
            scores = await self.behind.scores(model, picture.data)
        except DatasetError:
            self._count(model, "refused")
            raise
        self._count(model, "answered")
        if self.recorder is not None:
            self.recorder.offer(call.id, model, picture.data, scores)
        answer: dict[str, Any] = {} if picture.filename is None else {"filename": picture.filename}
        answer["predictions"] = top_k(scores, model.classes, k)
        if with_map:
            async with self._one_heatmap:  # 50 answers of the model: one at a time, so that others get theirs
                answer["heatmap"] = await heatmap(self.behind, model, picture.data, int(np.argmax(scores)))
        return answer

    async def _one_of_many(self, call: Call, model: ServedModel, picture: Picture, k: int) -> dict[str, Any]:
        named: dict[str, Any] = {} if picture.filename is None else {"filename": picture.filename}
        try:
            return {**named, **await self._one(call, model, picture, k, False)}
        except Refusal as refusal:
            return {**named, "error": refusal.message, "status": refusal.status}
        except DatasetError as error:
            return {**named, "error": reason(error), "status": 400}

    def _model(self, call: Call) -> ServedModel:
        name = call.parameters.get("name") or call.query("model")
        version = call.parameters.get("version") or call.query("version")
        model = self.behind.select(name, version, key=call.sticky_key)
        call.model, call.version = model.name, model.version
        return model

    def _count(self, model: ServedModel, outcome: str) -> None:
        self.metrics.count("autodl_pictures_total", (outcome, model.name, model.version))


def _options(call: Call, pictures: Pictures) -> tuple[int, bool]:
    """Return how many classes are wanted, and whether a heatmap: from the query, or from the JSON."""
    k = pictures.options.get("top_k", call.whole_number("top_k", _TOP_K))
    with_map = pictures.options.get("heatmap", call.flag("heatmap"))
    if type(k) is not int or k < 1:
        raise Refusal(400, f"top_k is a whole number, 1 or more, got {one_line(k)}.")
    if not isinstance(with_map, bool):
        raise Refusal(400, f"heatmap is true or false, got {one_line(with_map)}.")
    return k, with_map
