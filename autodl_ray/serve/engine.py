"""The models of one replica and the threads they work in: bytes or pixels in, classes or probabilities out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from autodl_ray.errors import AutoDLError
from autodl_ray.images import MAX_PIXELS, ImageArray, decode_image
from autodl_ray.serve.answers import Made, Probabilities, ServedModel, open_models, select
from autodl_ray.serve.batching import Batching, Lane, Lanes, choose_batching, measure_batches
from autodl_ray.serve.metrics import Metrics
from autodl_ray.serve.observe.watch import Watch
from autodl_ray.serve.rollout import Seen, takes_new

__all__ = ["Engine", "NextModel", "ServedModel", "open_models"]

_T = TypeVar("_T")
_WARM_UP_SIDE = 64  # px; every bundle takes any size


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
        models: At least one; the first is the default, and the first of a name is that model's default version.
        num_threads: Threads that decode and infer; each call takes one.
        max_pixels: Pictures with more are refused before they are decoded.
        metrics: Where times and batches are entered.
        watch: What looks at some of the answered pictures; None: nobody.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        *,
        num_threads: int = 1,
        max_pixels: int = MAX_PIXELS,
        metrics: Metrics | None = None,
        watch: Watch | None = None,
    ) -> None:
        firsts: dict[str, ServedModel] = {}
        for model in models:
            firsts.setdefault(model.name, model)
        self.models: Mapping[str, ServedModel] = firsts
        self.next: dict[str, NextModel] = {}
        self.max_pixels = max_pixels
        self.metrics = metrics or Metrics()
        self.watch = watch
        self._pinned = tuple(model for model in models if firsts[model.name] is not model)
        self._default = models[0].name
        self._under_way, self._recent = 0, Seen()
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

    def listing(self) -> Sequence[ServedModel]:
        """Return every version of every model: those that answer first, then those that are asked for by version."""
        return (*self.models.values(), *self._pinned, *(n.model for n in list(self.next.values())))

    def select(self, name: str | None = None, version: str | None = None, *, key: str = "") -> ServedModel:
        """Return the version that answers; a new one for its share of the keys. See :meth:`Answers.select`."""
        if version is not None or (name is not None and name not in self.models):
            return select(self.listing(), name, version)
        model = self.models[name or self._default]
        candidate = self.next.get(model.name)
        if candidate is not None and takes_new(key.encode(), candidate.rollout, candidate.share):
            return candidate.model
        return model

    async def run(self, work: Callable[..., _T], *args: Any) -> _T:
        """Run ``work`` in one of the threads and wait for it."""
        result: _T = await self._lanes.do(self._other, (work, args))
        return result

    async def scores(self, model: ServedModel, data: bytes) -> Probabilities:
        """Return (C,) float32 probabilities of the picture in ``data``.

        Raises:
            DatasetError: The bytes are no usable picture.
        """
        answer: Probabilities = (await self._ask(model, data, 1))[0]
        return answer

    async def probabilities(self, model: ServedModel, images: Sequence[ImageArray]) -> Probabilities:
        """Return (N, C) float32 probabilities for N decoded pictures."""
        return await self._ask(model, images, len(images))

    def warm_up(self) -> float:
        """Answer one grey picture with every model; returns the seconds it took."""
        started = time.perf_counter()
        for model in self.listing():
            model.predict([_grey(_WARM_UP_SIDE)])
        return time.perf_counter() - started

    def tune(self, *, latency_target_s: float | None = None) -> dict[str, Batching]:
        """Measure how each model takes batches, and choose by it; returns the choices by name."""
        for model in self.models.values():
            self._batching[model.name] = self._choose(model, latency_target_s)
            self._lane(model).batching = self._batching[model.name]
        return dict(self._batching)

    def load(self) -> tuple[int, float]:
        """Return the requests under way, and the 95th percentile of the latency since the last call (ms; 0: none)."""
        recent, self._recent = self._recent, Seen()
        return self._under_way, recent.quantile_ms(0.95)

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

    def keep(self, models: dict[str, ServedModel], *, default: str) -> None:
        """Serve only these models from now on."""
        self._default = default
        self.models = dict(models)

    def sweep(self) -> None:
        """Let go of versions that are not served any more and have nothing under way."""
        served = {id(model) for model in self.listing()}
        for key in [key for key in list(self._of) if key not in served]:
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
        self._under_way += 1
        try:
            self.metrics.count("autodl_queue_pictures", by=weight)
            answer: Probabilities = await self._lanes.do(self._lane(model), (item, began), weight=weight)
        except AutoDLError:  # the input's fault
            raise
        except Exception:
            failed = True
            raise
        finally:
            self.metrics.count("autodl_queue_pictures", by=-weight)
            self._under_way -= 1
            seconds = time.perf_counter() - began
            for tally in (self._recent, *tallies):
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

    def _work(self, model: ServedModel, items: Sequence[tuple[bytes | Sequence[ImageArray], float]]) -> list[Any]:
        """Answer a batch; a broken picture fails alone."""
        labels, start = (model.name, model.version), time.perf_counter()
        results: list[Any] = []
        pictures: list[ImageArray] = []
        for item, asked in items:
            self.metrics.observe("autodl_stage_seconds", start - asked, ("queue", *labels))
            try:
                new = [self._decode(item)] if isinstance(item, bytes) else list(item)
            except AutoDLError as error:
                results.append(error)
                continue
            results.append(slice(len(pictures), len(pictures) + len(new)))
            pictures += new
        if not pictures:
            return [np.empty((0, len(model.classes)), np.float32) if isinstance(r, slice) else r for r in results]
        decoded = time.perf_counter()
        answer = model.predict(pictures)
        self.metrics.observe("autodl_stage_seconds", decoded - start, ("decode", *labels))
        self.metrics.observe("autodl_stage_seconds", time.perf_counter() - decoded, ("infer", *labels))
        self.metrics.observe("autodl_batch_pictures", len(pictures), labels)
        if self.watch is not None and not any(isinstance(item, Made) for item, _ in items):
            self.watch.look(model, pictures[0], answer[0], seconds=time.perf_counter() - start)
        return [answer[r] if isinstance(r, slice) else r for r in results]


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
