"""The models of one replica and the threads they work in: bytes or pixels in, classes or probabilities out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from autodl_ray.errors import AutoDLError
from autodl_ray.images import MAX_PIXELS, ImageArray, decode_image
from autodl_ray.serve.batching import Batching, Lane, Lanes, choose_batching, measure_batches
from autodl_ray.serve.rollout import Seen, takes_new
from autodl_ray.tasks.classification import top_k

__all__ = ["Classifies", "Engine", "NextModel", "ServedModel", "open_models", "reason"]

_T = TypeVar("_T")
_WARM_UP_SIDE = 64  # px; every bundle takes any size

Probabilities = npt.NDArray[np.float32]


class Classifies(Protocol):
    """What a model has to do to be served: :class:`autodl_ray.models.predictor.Predictor` does."""

    def __call__(self, images: Sequence[ImageArray]) -> Probabilities:
        """Return (N, C) float32 probabilities for N pictures (H, W, 3) uint8 of any sizes."""
        ...


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version of a model as it is served.

    Attributes:
        name: What it is called in URLs and answers.
        version: Of the bundle.
        dataset: Id of the dataset version it learned from.
        classes: C class names in the order of the probabilities.
        predict: The model itself.
        side: Pixels of its input's side; what batches are measured with.
        seen: Its answers in this replica since it is served.
    """

    name: str
    version: str
    dataset: str
    classes: tuple[str, ...]
    predict: Classifies
    side: int = _WARM_UP_SIDE
    seen: Seen = field(default_factory=Seen)

    def facts(self) -> dict[str, Any]:
        """Return what is told about it: ``model``, ``version``, ``dataset``."""
        return {"model": self.name, "version": self.version, "dataset": self.dataset}


@dataclass
class NextModel:
    """A new version beside the one that is served.

    Attributes:
        model: The new version.
        rollout: Id of the rollout.
        share: Of the request keys that it answers.
        shadow: Share of the other requests that it answers too, unseen.
        old: What was seen of the old version since it came.
        since: When it began to answer, seconds of the monotonic clock.
    """

    model: ServedModel
    rollout: str
    share: float
    shadow: float
    old: Seen = field(default_factory=Seen)
    since: float = field(default_factory=time.monotonic)
    debt: float = 0.0


class Engine:
    """Models and a few threads, so that decoding and inference never hold up the event loop.

    Args:
        models: At least one; the first is the default.
        num_threads: Threads that decode and infer; each call takes one.
        max_pixels: Pictures with more are refused before they are decoded.
    """

    def __init__(self, models: Sequence[ServedModel], *, num_threads: int = 1, max_pixels: int = MAX_PIXELS) -> None:
        self.models = {model.name: model for model in models}
        self.next: dict[str, NextModel] = {}
        self.max_pixels = max_pixels
        self._default = models[0].name
        self._lanes = Lanes(num_threads)
        self._other = self._lanes.add(Lane(_call_each))
        self._of: dict[int, Lane] = {}
        self._batching: dict[str, Batching] = {}
        self._background: set[asyncio.Task[None]] = set()
        for model in models:
            self._open_lane(model)

    @property
    def default(self) -> ServedModel:
        """The model that is asked when none is named."""
        return self.models[self._default]

    def pick(self, model: ServedModel, key: bytes) -> ServedModel:
        """Return the version that answers requests with this key: the new one for its share of the keys."""
        candidate = self.next.get(model.name)
        if candidate is not None and takes_new(key, candidate.rollout, candidate.share):
            return candidate.model
        return model

    async def run(self, work: Callable[..., _T], *args: Any) -> _T:
        """Run ``work`` in one of the threads and wait for it."""
        result: _T = await self._lanes.do(self._other, (work, args))
        return result

    async def classify(self, model: ServedModel, data: bytes, k: int) -> list[dict[str, object]]:
        """Return the ``k`` likeliest classes of the picture in ``data``.

        Raises:
            DatasetError: The bytes are no usable picture.
        """
        return top_k((await self._ask(model, data, 1))[0], model.classes, k)

    async def probabilities(self, model: ServedModel, images: Sequence[ImageArray]) -> Probabilities:
        """Return (N, C) float32 probabilities for N decoded pictures."""
        return await self._ask(model, images, len(images))

    async def decode(self, data: bytes) -> ImageArray:
        """Decode a picture to (H, W, 3) uint8.

        Raises:
            DatasetError: The bytes are no usable picture.
        """
        return await self.run(self._decode, data)

    def warm_up(self) -> float:
        """Answer one grey picture with every model; returns the seconds it took."""
        started = time.perf_counter()
        for model in self.models.values():
            model.predict([_grey(_WARM_UP_SIDE)])
        return time.perf_counter() - started

    def tune(self, *, latency_target_s: float | None = None) -> dict[str, Batching]:
        """Measure how each model takes batches, and choose by it; returns the choices by name."""
        for model in self.models.values():
            self._batching[model.name] = self._choose(model, latency_target_s)
            self._lane(model).batching = self._batching[model.name]
        return dict(self._batching)

    def offer(self, candidate: NextModel) -> None:
        """Let a new version answer its share beside the old one."""
        self._open_lane(candidate.model)
        self.next[candidate.model.name] = candidate

    def take_over(self, model: ServedModel) -> None:
        """Serve this version from now on; requests that the old one has begun are still answered by it."""
        self._open_lane(model)
        self.models = {**self.models, model.name: model}
        self.next.pop(model.name, None)

    def withdraw(self, name: str) -> None:
        """Let the new version of a model answer no more."""
        self.next.pop(name, None)

    def sweep(self) -> None:
        """Let go of versions that are not served any more and have nothing under way."""
        served = {id(m) for m in (*self.models.values(), *(n.model for n in self.next.values()))}
        for key in [key for key in self._of if key not in served]:
            if self._lanes.remove(self._of[key]):
                del self._of[key]

    def close(self) -> None:
        """Let the threads end."""
        self._lanes.close()

    async def _ask(self, model: ServedModel, item: bytes | Sequence[ImageArray], weight: int) -> Probabilities:
        candidate = self.next.get(model.name)
        if candidate is None:
            return await self._timed(model, item, weight, (model.seen,))
        if model is candidate.model:
            try:
                answer = await self._timed(model, item, weight, (model.seen,))
            except AutoDLError:
                raise
            except Exception:  # the new version failed: the old one answers
                return await self._timed(self.models[model.name], item, weight, (candidate.old,))
            self._shadow(candidate, self.models[model.name], item, weight, answer, share=0.1)
        else:
            answer = await self._timed(model, item, weight, (model.seen, candidate.old))
            self._shadow(candidate, candidate.model, item, weight, answer, share=candidate.shadow)
        return answer

    async def _timed(
        self, model: ServedModel, item: bytes | Sequence[ImageArray], weight: int, tallies: Sequence[Seen]
    ) -> Probabilities:
        began, failed = time.perf_counter(), False
        try:
            answer: Probabilities = await self._lanes.do(self._lane(model), item, weight=weight)
        except AutoDLError:  # the input's fault
            raise
        except Exception:
            failed = True
            raise
        finally:
            seconds = time.perf_counter() - began
            for tally in tallies:
                tally.answered(seconds, failed=failed)
        return answer

    def _shadow(
        self,
        candidate: NextModel,
        other: ServedModel,
        item: bytes | Sequence[ImageArray],
        weight: int,
        answer: Probabilities,
        *,
        share: float,
    ) -> None:
        """Let the other version answer every so many requests too, unseen, and compare."""
        candidate.debt += share
        if candidate.debt < 1 or len(self._background) > 4:  # under load comparing is what is left out
            return
        candidate.debt -= 1
        task = asyncio.get_running_loop().create_task(self._compare(candidate, other, item, weight, answer))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _compare(
        self,
        candidate: NextModel,
        other: ServedModel,
        item: bytes | Sequence[ImageArray],
        weight: int,
        answer: Probabilities,
    ) -> None:
        is_new = other is candidate.model
        try:
            theirs = await self._timed(other, item, weight, (other.seen,) if is_new else ())
        except Exception:  # counted
            return
        mine, his = self.models[other.name].classes if is_new else candidate.model.classes, other.classes
        candidate.model.seen.compared += weight
        candidate.model.seen.disagreed += sum(
            mine[a] != his[b] for a, b in zip(answer.argmax(1), theirs.argmax(1), strict=True)
        )

    def _choose(self, model: ServedModel, latency_target_s: float | None) -> Batching:
        grey = _grey(model.side)
        seconds = measure_batches(lambda n: model.predict([grey] * n))
        return choose_batching(seconds, latency_target_s=latency_target_s)

    def _lane(self, model: ServedModel) -> Lane:
        return self._of.get(id(model)) or self._open_lane(model)

    def _open_lane(self, model: ServedModel) -> Lane:
        if id(model) not in self._of:
            lane = Lane(lambda items: self._work(model, items), self._batching.get(model.name, Batching()))
            self._of[id(model)] = self._lanes.add(lane)
        return self._of[id(model)]

    def _decode(self, data: bytes) -> ImageArray:
        return decode_image(data, max_pixels=self.max_pixels)

    def _work(self, model: ServedModel, items: Sequence[bytes | Sequence[ImageArray]]) -> list[Any]:
        """Answer a batch; a broken picture fails alone."""
        results: list[Any] = []
        pictures: list[ImageArray] = []
        for item in items:
            try:
                new = [self._decode(item)] if isinstance(item, bytes) else list(item)
            except AutoDLError as error:
                results.append(error)
                continue
            results.append(slice(len(pictures), len(pictures) + len(new)))
            pictures += new
        if not pictures:
            return [np.empty((0, len(model.classes)), np.float32) if isinstance(r, slice) else r for r in results]
        answer = model.predict(pictures)
        return [answer[r] if isinstance(r, slice) else r for r in results]


def open_models(bundles: Sequence[tuple[str, str | Path]], *, num_threads: int) -> list[ServedModel]:
    """Open bundles in this process.

    Args:
        bundles: (name, folder) of each.
        num_threads: onnxruntime threads of a call.

    Raises:
        BundleError: A bundle is damaged, truncated or of a newer schema.
    """
    from autodl_ray.models.predictor import Predictor

    models = []
    for name, folder in bundles:
        predictor = Predictor.open(folder, num_threads=num_threads)
        info = predictor.info
        side = info.preprocess.size
        models.append(ServedModel(name, info.version, info.dataset_id, info.classes, predictor, side))
    return models


def reason(error: AutoDLError) -> str:
    """Say in one line what was wrong with the input, for an answer."""
    details = [f"{key}: {value}" for key, value in (("seen", error.seen), ("accepted", error.accepted)) if value]
    return error.what + (f" ({'; '.join(details)})" if details else "")


def _grey(side: int) -> ImageArray:
    return np.full((side, side, 3), 127, np.uint8)


def _call_each(items: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]]) -> list[Any]:
    results: list[Any] = []
    for work, arguments in items:
        try:
            results.append(work(*arguments))
        except Exception as error:
            results.append(error)
    return results
