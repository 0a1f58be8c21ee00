"""The models of one replica and the threads they work in: bytes or pixels in, classes or probabilities out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from autodl_ray.errors import AutoDLError, near_names
from autodl_ray.images import MAX_PIXELS, ImageArray, decode_image
from autodl_ray.serve.metrics import Metrics
from autodl_ray.tasks.classification import top_k

__all__ = ["Answers", "Classifies", "Engine", "ServedModel", "UnknownModelError", "open_models", "reason", "select"]

_T = TypeVar("_T")
_WARM_UP_SIDE = 64  # px; every bundle takes any size


class Classifies(Protocol):
    """What a model has to do to be served: :class:`autodl_ray.models.predictor.Predictor` does."""

    def __call__(self, images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
        """Return (N, C) float32 probabilities for N pictures (H, W, 3) uint8 of any sizes."""
        ...


class UnknownModelError(LookupError):
    """There is no model of that name, or no such version; the message says what there is."""


@dataclass(frozen=True)
class ServedModel:
    """One model as it is served.

    Attributes:
        name: What it is called in URLs and answers.
        version: Of the bundle.
        dataset: Id of the dataset version it learned from.
        classes: C class names in the order of the probabilities.
        predict: The model itself.
    """

    name: str
    version: str
    dataset: str
    classes: tuple[str, ...]
    predict: Classifies

    def facts(self) -> dict[str, Any]:
        """Return what is told about it: ``model``, ``version``, ``dataset``."""
        return {"model": self.name, "version": self.version, "dataset": self.dataset}


class Answers(Protocol):
    """What the HTTP application asks of what is behind it; :class:`Engine` is one, a router to others may be one too.

    Attributes:
        models: Name → the version that answers when none is asked for; the first is the default model.
        max_pixels: Pictures with more are refused before they are decoded.
    """

    models: Mapping[str, ServedModel]
    max_pixels: int

    def listing(self) -> Sequence[ServedModel]:
        """Return every version of every model."""
        ...

    def select(self, name: str | None = None, version: str | None = None, *, key: str = "") -> ServedModel:
        """Choose who answers.

        Args:
            name: None: the default model.
            version: None: as the service decides, e.g. by the shares of a canary.
            key: Requests with the same key get the same version.

        Raises:
            UnknownModelError: There is none.
        """
        ...

    async def scores(self, model: ServedModel, data: bytes) -> npt.NDArray[np.float32]:
        """Return (C,) float32 probabilities of the picture in ``data``.

        Raises:
            DatasetError: The bytes are no usable picture.
        """
        ...

    async def probabilities(self, model: ServedModel, images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
        """Return (N, C) float32 probabilities for N decoded pictures."""
        ...

    async def run(self, work: Callable[..., _T], *args: Any) -> _T:
        """Run ``work`` off the event loop."""
        ...


def select(versions: Sequence[ServedModel], name: str | None, version: str | None) -> ServedModel:
    """Return the first of ``versions`` that has this name and version; None: any.

    Raises:
        UnknownModelError: There is none; the message names what there is.
    """
    named = [model for model in versions if name is None or model.name == name]
    if not named and name is not None:
        names = list(dict.fromkeys(model.name for model in versions))
        hint = near_names(name, names) or f"there is {', '.join(names)}."
        raise UnknownModelError(f"There is no model {name[:60]!r}; {hint}")
    for model in named:
        if version is None or model.version == version:
            return model
    there = ", ".join(model.version for model in named)
    raise UnknownModelError(f"Model {named[0].name!r} has no version {str(version)[:60]!r}; there is {there}.")


class Engine:
    """Models and a thread pool, so that decoding and inference never hold up the event loop.

    Args:
        models: At least one; the first is the default, and the first of a name is that model's default version.
        num_threads: Pictures worked on at a time.
        max_pixels: Pictures with more are refused before they are decoded.
        metrics: Where times and batches are entered.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        *,
        num_threads: int = 1,
        max_pixels: int = MAX_PIXELS,
        metrics: Metrics | None = None,
    ) -> None:
        self._versions = tuple(models)
        self.models: Mapping[str, ServedModel] = {model.name: model for model in reversed(models)}
        self.models = {model.name: self.models[model.name] for model in models}
        self.default = models[0]
        self.max_pixels = max_pixels
        self.metrics = metrics or Metrics()
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="inference")

    def listing(self) -> Sequence[ServedModel]:
        """Return every version of every model."""
        return self._versions

    def select(self, name: str | None = None, version: str | None = None, *, key: str = "") -> ServedModel:
        """Return the model of that name and version; see :meth:`Answers.select`."""
        if version is None and (name is None or name in self.models):
            return self.default if name is None else self.models[name]
        return select(self._versions, name, version)

    async def run(self, work: Callable[..., _T], *args: Any) -> _T:
        """Run ``work`` in the pool and wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    async def scores(self, model: ServedModel, data: bytes) -> npt.NDArray[np.float32]:
        """Return (C,) float32 probabilities of the picture in ``data``.

        Raises:
            DatasetError: The bytes are no usable picture.
        """
        self.metrics.count("autodl_queue_pictures")
        return await self.run(self._scores, model, data, time.perf_counter())

    async def probabilities(self, model: ServedModel, images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
        """Return (N, C) float32 probabilities for N decoded pictures."""
        self.metrics.count("autodl_queue_pictures", by=len(images))
        return await self.run(self._probabilities, model, images, time.perf_counter())

    async def classify(self, model: ServedModel, data: bytes, k: int) -> list[dict[str, object]]:
        """Return the ``k`` likeliest classes of the picture in ``data``."""
        return top_k(await self.scores(model, data), model.classes, k)

    async def decode(self, data: bytes) -> ImageArray:
        """Decode a picture to (H, W, 3) uint8."""
        return await self.run(lambda: decode_image(data, max_pixels=self.max_pixels))

    def warm_up(self) -> float:
        """Answer one grey picture with every model; returns the seconds it took."""
        started = time.perf_counter()
        grey = np.full((_WARM_UP_SIDE, _WARM_UP_SIDE, 3), 127, np.uint8)
        for model in self._versions:
            model.predict([grey])
        return time.perf_counter() - started

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _scores(self, model: ServedModel, data: bytes, asked: float) -> npt.NDArray[np.float32]:
        start = self._taken(model, 1, asked)
        image = decode_image(data, max_pixels=self.max_pixels)
        decoded = time.perf_counter()
        self.metrics.observe("autodl_stage_seconds", decoded - start, ("decode", model.name, model.version))
        return self._predict(model, [image], decoded)[0]

    def _probabilities(self, model: ServedModel, images: Sequence[ImageArray], asked: float) -> npt.NDArray[np.float32]:
        return self._predict(model, images, self._taken(model, len(images), asked))

    def _taken(self, model: ServedModel, count: int, asked: float) -> float:
        now = time.perf_counter()
        self.metrics.count("autodl_queue_pictures", by=-count)
        self.metrics.observe("autodl_stage_seconds", now - asked, ("queue", model.name, model.version))
        return now

    def _predict(self, model: ServedModel, images: Sequence[ImageArray], start: float) -> npt.NDArray[np.float32]:
        answer = model.predict(images)
        labels = (model.name, model.version)
        self.metrics.observe("autodl_stage_seconds", time.perf_counter() - start, ("infer", *labels))
        self.metrics.observe("autodl_batch_pictures", len(images), labels)
        return answer


def open_models(bundles: Sequence[tuple[str, str | Path]], *, num_threads: int) -> list[ServedModel]:
    """Open bundles in this process.

    Args:
        bundles: (name, folder) of each.
        num_threads: onnxruntime threads of each.

    Raises:
        BundleError: A bundle is damaged, truncated or of a newer schema.
    """
    from autodl_ray.models.predictor import Predictor

    models = []
    for name, folder in bundles:
        predictor = Predictor.open(folder, num_threads=num_threads)
        info = predictor.info
        models.append(ServedModel(name, info.version, info.dataset_id, info.classes, predictor))
    return models


def reason(error: AutoDLError) -> str:
    """Say in one line what was wrong with the input, for an answer."""
    details = [f"{key}: {value}" for key, value in (("seen", error.seen), ("accepted", error.accepted)) if value]
    return error.what + (f" ({'; '.join(details)})" if details else "")
