"""The models of one replica and the threads they work in: bytes or pixels in, classes or probabilities out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from autodl_ray.errors import AutoDLError
from autodl_ray.images import MAX_PIXELS, ImageArray, decode_image
from autodl_ray.tasks.classification import top_k

__all__ = ["Classifies", "Engine", "ServedModel", "open_models", "reason"]

_T = TypeVar("_T")
_WARM_UP_SIDE = 64  # px; every bundle takes any size


class Classifies(Protocol):
    """What a model has to do to be served: :class:`autodl_ray.models.predictor.Predictor` does."""

    def __call__(self, images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
        """Return (N, C) float32 probabilities for N pictures (H, W, 3) uint8 of any sizes."""
        ...


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


class Engine:
    """Models and a thread pool, so that decoding and inference never hold up the event loop.

    Args:
        models: At least one; the first is the default.
        num_threads: Pictures worked on at a time.
        max_pixels: Pictures with more are refused before they are decoded.
    """

    def __init__(self, models: Sequence[ServedModel], *, num_threads: int = 1, max_pixels: int = MAX_PIXELS) -> None:
        self.models = {model.name: model for model in models}
        self.default = models[0]
        self.max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="inference")

    async def run(self, work: Callable[..., _T], *args: Any) -> _T:
        """Run ``work`` in the pool and wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    async def classify(self, model: ServedModel, data: bytes, k: int) -> list[dict[str, object]]:
        """Return the ``k`` likeliest classes of the picture in ``data``.

        Raises:
            DatasetError: The bytes are no usable picture.
        """
        return await self.run(self._classify, model, data, k)

    async def probabilities(self, model: ServedModel, images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
        """Return (N, C) float32 probabilities for N decoded pictures."""
        return await self.run(model.predict, images)

    async def decode(self, data: bytes) -> ImageArray:
        """Decode a picture to (H, W, 3) uint8.

        Raises:
            DatasetError: The bytes are no usable picture.
        """
        return await self.run(self._decode, data)

    def warm_up(self) -> float:
        """Answer one grey picture with every model; returns the seconds it took."""
        started = time.perf_counter()
        grey = np.full((_WARM_UP_SIDE, _WARM_UP_SIDE, 3), 127, np.uint8)
        for model in self.models.values():
            model.predict([grey])
        return time.perf_counter() - started

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _decode(self, data: bytes) -> ImageArray:
        return decode_image(data, max_pixels=self.max_pixels)

    def _classify(self, model: ServedModel, data: bytes, k: int) -> list[dict[str, object]]:
        return top_k(model.predict([self._decode(data)])[0], model.classes, k)


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
