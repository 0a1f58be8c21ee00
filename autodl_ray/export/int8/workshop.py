"""Where INT8 models are made: the network, its calibration pictures, and what is known of them so far."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx

from autodl_ray.artifacts import TrainSamples
from autodl_ray.export.graph import INPUT, PIXELS, preprocess_model, with_preprocess
from autodl_ray.export.int8.calibration import ActivationSample, CalibrationMethod, Range, observe, ranges
from autodl_ray.export.int8.quantize import quantize_core, with_short_names
from autodl_ray.export.pictures import decoded
from autodl_ray.images import Preprocess
from autodl_ray.models.predictor import open_session

__all__ = ["Workshop"]

Pixels = npt.NDArray[np.float32]

_CHUNK = 8
_KEEP_BYTES = 128 * 2**20


@dataclass
class Workshop:
    """A network that is to be quantized.

    Attributes:
        core: From ``pixels`` to logits, float, with named nodes.
        preprocess: What ``pixels`` are of a picture; these nodes stay in float.
        num_classes: C.
        chosen: The calibration pictures, of the training split alone.
        train: All of the training split, for the rung that trains.
    """

    core: onnx.ModelProto
    preprocess: Preprocess
    num_classes: int
    chosen: TrainSamples
    train: TrainSamples
    _kept: list[Pixels] = field(default_factory=list)
    _seen: Mapping[str, ActivationSample] | None = None

    def batches(self) -> Iterator[Pixels]:
        """Yield the calibration pictures, (N, 3, S, S) float32; kept while they fit into 128 MB."""
        if self._kept and sum(len(p) for p in self._kept) == len(self.chosen):
            yield from self._kept
            return
        session = open_session(preprocess_model(self.preprocess).SerializeToString())
        self._kept.clear()
        size = 0
        for _, pictures in decoded(self.chosen, range(len(self.chosen)), chunk=_CHUNK):
            pixels = np.concatenate([session.run([PIXELS], {INPUT: p[None]})[0] for p in pictures])
            size += pixels.nbytes
            if size <= _KEEP_BYTES:
                self._kept.append(pixels)
            yield pixels

    def few(self, count: int) -> list[Pixels]:
        """Return about ``count`` calibration pictures, in batches, spread over all of them."""
        whole = list(self.batches()) if not self._kept else self._kept
        step = max(1, len(whole) * _CHUNK // max(count, 1))
        return whole[::step]

    def seen(self) -> Mapping[str, ActivationSample]:
        """Return what was seen of each tensor; observed once."""
        if self._seen is None:
            self._seen = observe(self.core, self.batches())
        return self._seen

    def ranges(self, method: CalibrationMethod) -> dict[str, Range]:
        """Return tensor → range by a method."""
        return ranges(self.seen(), method)

    def quantized(
        self, core: onnx.ModelProto, spans: Mapping[str, Range], *, in_float: tuple[str, ...] = ()
    ) -> onnx.ModelProto:
        """Quantize a core statically."""
        if not self._kept:
            next(self.batches())
        return quantize_core(core, spans, self._kept[0][:1], in_float=in_float)

    def whole(self, core: onnx.ModelProto) -> bytes:
        """Put preprocessing before and softmax behind a core, whose names become short."""
        return bytes(with_preprocess(with_short_names(core), self.preprocess, self.num_classes).SerializeToString())

    def ids(self) -> str:
        """Return the first 16 hex of the sha256 over the ids of the calibration pictures."""
        return hashlib.sha256(np.asarray(self.chosen.ids, dtype="<i8").tobytes()).hexdigest()[:16]
