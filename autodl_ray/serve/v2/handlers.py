"""The routes of the Open Inference Protocol V2."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib.metadata import version as installed_version

import numpy as np
import numpy.typing as npt

from autodl_ray.errors import DatasetError
from autodl_ray.serve.answers import Answers, ServedModel, reason
from autodl_ray.serve.http.answers import Answer, Refusal, json_answer
from autodl_ray.serve.http.body import read_body
from autodl_ray.serve.http.calls import Call
from autodl_ray.serve.http.routes import Route
from autodl_ray.serve.metrics import Metrics
from autodl_ray.serve.observe.record import Recorder
from autodl_ray.serve.v2.about import model_config, model_metadata, repository_index, server_metadata, statistics
from autodl_ray.serve.v2.answer import compressed, render_infer
from autodl_ray.serve.v2.request import InferRequest, json_size, parse_infer
from autodl_ray.spec import ServeSpec

__all__ = ["ProtocolV2"]

_SMALL = 65_536  # bytes of JSON that are parsed at once: a thread would cost more


@dataclass(frozen=True)
class ProtocolV2:
    """The handlers.

    Attributes:
        behind: Who answers.
        settings: Caps.
        metrics: Where pictures are counted and statistics come from.
        recorder: Keeps some of the answers; None: none.
    """

    behind: Answers
    settings: ServeSpec
    metrics: Metrics
    recorder: Recorder | None = None

    def routes(self) -> list[Route]:
        """Return the routes, those with a fixed path first."""
        model, versioned = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
        routes = [
            Route("GET", "/v2", self.server),
            Route("GET", "/v2/health/live", self.health, "open"),
            Route("GET", "/v2/health/ready", self.health, "open"),
            Route("GET", "/v2/models/stats", self.stats),
            Route("POST", "/v2/repository/index", self.index),
        ]
        for path in (model, versioned):
            routes += [
                Route("POST", f"{path}/infer", self.infer),
                Route("GET", path, self.metadata),
                Route("GET", f"{path}/ready", self.ready),
                Route("GET", f"{path}/config", self.config),
                Route("GET", f"{path}/stats", self.stats),
            ]
        for verb in ("load", "unload"):
            routes.append(Route("POST", f"/v2/repository/models/{{name}}/{verb}", self.fixed, "admin"))
        return routes

    async def server(self, call: Call) -> Answer:
        """Say what this is."""
        return json_answer(server_metadata(installed_version("autodl_ray")))

    async def health(self, call: Call) -> Answer:
        """Say yes: a replica takes requests only after its models have answered once."""
        return json_answer({"live": True, "ready": True})

    async def index(self, call: Call) -> Answer:
        """List every version of every model."""
        return json_answer(repository_index(self.behind.listing()))

    async def metadata(self, call: Call) -> Answer:
        """Describe a model."""
        model = self._model(call)
        return json_answer(model_metadata(model, [m.version for m in self.behind.listing() if m.name == model.name]))

    async def ready(self, call: Call) -> Answer:
        """Say yes for a model that is there."""
        return json_answer({"name": self._model(call).name, "ready": True})

    async def config(self, call: Call) -> Answer:
        """Return a model's configuration in Triton's words."""
        return json_answer(model_config(self._model(call), self.settings.max_pictures))

    async def stats(self, call: Call) -> Answer:
        """Return counts and times of one model or of all."""
        models = self.behind.listing()
        if "name" in call.parameters:
            models = [self._model(call)]
        return json_answer(statistics(models, await self.behind.run(self.metrics.snapshot)))

    async def fixed(self, call: Call) -> Answer:
        """Refuse to load or unload."""
        raise Refusal(400, "Models are loaded by autodl serve and autodl deploy, not over this interface.")

    async def infer(self, call: Call) -> Answer:
        """Answer an inference request."""
        model = self._model(call)
        body = await read_body(call, max_bytes=int(self.settings.max_body_mb * 1e6))
        request = await self._parsed(body, call.header(b"inference-header-content-length"))
        call.pictures = request.count
        try:
            async with asyncio.timeout(request.timeout_s):
                probabilities = await self._answered(model, request)
        except TimeoutError as error:
            raise Refusal(408, f"There was no answer within the {request.timeout_s:g} s of this request.") from error
        if self.recorder is not None:
            pictures = request.files if request.pixels is None else request.pixels
            for picture, row in zip(pictures, probabilities, strict=True):
                self.recorder.offer(call.id, model, picture, row)
        answer = render_infer(model, request, probabilities)
        accepted = call.headers.get(b"accept-encoding")
        return answer if accepted is None else compressed(answer, accepted.decode("latin-1"))

    async def _parsed(self, body: bytes, header_length: str) -> InferRequest:
        def parse() -> InferRequest:
            return parse_infer(
                body,
                header_length,
                max_pixels=self.behind.max_pixels,
                max_pictures=self.settings.max_pictures,
            )

        return parse() if json_size(body, header_length) <= _SMALL else await self.behind.run(parse)

    async def _answered(self, model: ServedModel, request: InferRequest) -> npt.NDArray[np.float32]:
        labels = (model.name, model.version)
        try:
            if request.pixels is None:
                scores = await self._of_files(model, request.files)
            else:
                scores = await self.behind.probabilities(model, list(request.pixels))
        except (DatasetError, Refusal):
            self.metrics.count("autodl_pictures_total", ("refused", *labels), by=request.count)
            raise
        self.metrics.count("autodl_pictures_total", ("answered", *labels), by=request.count)
        return scores

    async def _of_files(self, model: ServedModel, files: tuple[bytes, ...]) -> npt.NDArray[np.float32]:
        # One by one, so that never more pictures than threads are decoded at a time.
        rows = await asyncio.gather(*(self.behind.scores(model, file) for file in files), return_exceptions=True)
        for position, row in enumerate(rows):
            if isinstance(row, DatasetError) and len(files) > 1:
                raise Refusal(400, f"Picture {position} of {len(files)}: {reason(row)}") from row
            if isinstance(row, BaseException):
                raise row
        return np.stack([row for row in rows if not isinstance(row, BaseException)])

    def _model(self, call: Call) -> ServedModel:
        model = self.behind.select(call.parameters["name"], call.parameters.get("version"), key=call.sticky_key)
        call.model, call.version = model.name, model.version
        return model
