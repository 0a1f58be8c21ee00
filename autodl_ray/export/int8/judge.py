"""INT8 beside FP32 on the validation split: the same pictures, decoded once while they fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts import ValSamples
from autodl_ray.export.graph import INPUT, OUTPUT
from autodl_ray.export.int8.gate import PairedLoss, paired_loss
from autodl_ray.export.pictures import decoded
from autodl_ray.export.speed import SpeedRatio, interleaved_seconds, speed_ratio
from autodl_ray.images import ImageArray
from autodl_ray.models.predictor import group_by_size, open_session

__all__ = ["Judge", "Predicted"]

Predicted = npt.NDArray[np.int64]

_KEEP_BYTES = 256 * 2**20
_ROUNDS = 15
_MORE_ROUNDS = 60
_SECONDS = 4.0


class Judge:
    """The validation split, and what FP32 says about it.

    Args:
        fp32: The whole model, from pictures to probabilities.
        val: The split.
        batch: Pictures a call while speed is measured.
        num_threads: onnxruntime threads while speed is measured; 0: all cores.
    """

    def __init__(self, fp32: bytes, val: ValSamples, *, batch: int, num_threads: int = 0) -> None:
        self._val, self._batch, self._threads = val, batch, num_threads
        self._kept: list[tuple[list[int], list[ImageArray]]] | None = None
        self._fp32 = open_session(fp32)
        self._timed = open_session(fp32, num_threads=num_threads) if num_threads else self._fp32
        self.num_classes = int(self._fp32.get_outputs()[0].shape[1])
        self._answers: Predicted | None = None

    @property
    def fp32_answers(self) -> Predicted:
        """(N,) classes that FP32 predicts; worked out once."""
        if self._answers is None:
            self._answers = self.answers({"fp32": self._fp32})["fp32"]
        return self._answers

    @property
    def fp32_accuracy(self) -> float:
        """Of FP32 on the split."""
        return float((self.fp32_answers == self._val.labels).mean())

    def predicted(self, models: Mapping[str, bytes]) -> dict[str, Predicted]:
        """Name → (N,) classes that each model predicts; FP32's own are worked out on the way."""
        sessions = {name: open_session(model) for name, model in models.items()}
        if self._answers is not None:
            return self.answers(sessions)
        answers = self.answers({"": self._fp32, **sessions})
        self._answers = answers.pop("")
        return answers

    def loss(self, answers: Predicted) -> PairedLoss:
        """Compare a model with FP32."""
        return paired_loss(self.fp32_answers, answers, self._val.labels)

    def answers(self, sessions: Mapping[str, Any]) -> dict[str, Predicted]:
        """Name → (N,) predicted class of every picture; each is decoded once."""
        answers = {name: np.empty(len(self._val), dtype=np.int64) for name in sessions}
        for positions, pictures in self._pictures():
            for part in group_by_size(pictures):
                batch = np.stack([pictures[i] for i in part])
                rows = [positions[i] for i in part]
                for name, session in sessions.items():
                    answers[name][rows] = session.run([OUTPUT], {INPUT: batch})[0].argmax(axis=1)
        return answers

    def rate(self) -> float:
        """Pictures a second of FP32, from three calls."""
        batch = self._sample()
        seconds = interleaved_seconds({"": lambda: self._timed.run([OUTPUT], {INPUT: batch})}, repeats=3)
        return len(batch) / sorted(seconds[""])[1]

    def speeds(self, model: bytes, limit: float) -> tuple[SpeedRatio, float, float]:
        """Time FP32 and a model in turn, longer where the noise cannot tell on which side of ``limit`` the ratio is.

        Returns:
            The ratio; pictures a second of FP32; of the model.
        """
        batch = self._sample()
        session = open_session(model, num_threads=self._threads)
        calls = {
            "fp32": lambda: self._timed.run([OUTPUT], {INPUT: batch}),
            "int8": lambda: session.run([OUTPUT], {INPUT: batch}),
        }
        seconds = interleaved_seconds(calls, repeats=_ROUNDS, limit_s=_SECONDS)
        ratio = speed_ratio(seconds["fp32"], seconds["int8"])
        if ratio.low < limit <= ratio.high:
            more = interleaved_seconds(calls, repeats=_MORE_ROUNDS, limit_s=_SECONDS)
            seconds = {name: seconds[name] + more[name] for name in calls}
            ratio = speed_ratio(seconds["fp32"], seconds["int8"])
        fp32, int8 = (len(batch) / float(np.median(seconds[name])) for name in ("fp32", "int8"))
        return ratio, fp32, int8

    def _sample(self) -> npt.NDArray[np.uint8]:
        """The first picture, several times: speed does not depend on what is seen."""
        picture: ImageArray = next(iter(decoded(self._val, [0])))[1][0]
        return np.repeat(picture[None], self._batch, axis=0)

    def _pictures(self) -> Iterator[tuple[list[int], list[ImageArray]]]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[tuple[list[int], list[ImageArray]]] = []
        size = 0
        for positions, pictures in decoded(self._val, range(len(self._val))):
            size += sum(picture.nbytes for picture in pictures)
            if size <= _KEEP_BYTES:
                kept.append((positions, pictures))
            yield positions, pictures
        self._kept = kept if size <= _KEEP_BYTES else None
