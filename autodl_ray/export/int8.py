"""INT8: made, measured beside FP32 on this machine and these pictures, and kept only where it is better.

Calibration sees the training split alone; the method is chosen by validation accuracy. See
:mod:`autodl_ray.export.calibration` for the methods and :mod:`autodl_ray.export.quantize` for the arithmetic.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from autodl_ray.artifacts import TrainSamples, ValSamples
from autodl_ray.artifacts.bundle import Int8Conditions, Int8Record, VariantFigures
from autodl_ray.export.calibration import METHODS, CalibrationMethod, observe, ranges
from autodl_ray.export.graph import INPUT, OUTPUT, PIXELS, preprocess_model, with_preprocess
from autodl_ray.export.pictures import decoded, spread
from autodl_ray.export.quantize import quantize_core
from autodl_ray.export.speed import interleaved_rates
from autodl_ray.images import ImageArray, Preprocess
from autodl_ray.models.predictor import group_by_size, open_session
from autodl_ray.spec import ExportSpec

__all__ = ["Decision", "Int8Figures", "decide", "estimate_seconds", "try_int8"]

_SPEED_BATCH = 8
_RESERVE_S = 5.0  # of the time left that INT8 never plans to use


@dataclass(frozen=True)
class Int8Figures:
    """FP32 and INT8 side by side."""

    fp32: VariantFigures
    int8: VariantFigures

    @property
    def speedup(self) -> float:
        """Speed of INT8 by that of FP32."""
        return self.int8.images_per_s / self.fp32.images_per_s

    @property
    def drop(self) -> float:
        """Validation accuracy lost; negative where INT8 is better."""
        return self.fp32.accuracy - self.int8.accuracy


@dataclass(frozen=True)
class Decision:
    """Whether INT8 is delivered, and why."""

    kept: bool
    reason: str


def decide(figures: Int8Figures, spec: ExportSpec) -> Decision:
    """Keep INT8 where it is at least ``min_speedup`` times as fast and loses at most ``max_drop`` of accuracy.

    Args:
        figures: What was measured.
        spec: The limits.

    Returns:
        The decision; its reason names the figures and the limits that were missed.
    """
    speed = f"{figures.speedup:.2f} times the speed of FP32"
    points = 100 * figures.drop
    drop = f"{abs(points):.2f} points of validation accuracy {'lost' if points >= 0 else 'gained'}"
    failed = []
    if figures.speedup < spec.min_speedup:
        failed.append(f"too slow: {speed}, at least {spec.min_speedup:g} asked for")
    if figures.drop > spec.max_drop + 1e-9:
        failed.append(f"too inaccurate: {drop}, at most {100 * spec.max_drop:g} accepted")
    return Decision(not failed, "; ".join(failed) or f"{speed}, {drop}")


def estimate_seconds(*, calibration: int, val: int, images_per_s: float, methods: int = len(METHODS)) -> float:
    """Estimate how long :func:`try_int8` takes, from the speed of FP32.

    A calibration picture costs about three FP32 answers; a validation picture one, and at most one more a method.
    """
    return 2.0 + 2.0 * methods + (3 * calibration + (1 + methods) * val) / images_per_s


def try_int8(
    spec: ExportSpec,
    core: onnx.ModelProto,
    fp32: bytes,
    *,
    preprocess: Preprocess,
    train: TrainSamples,
    val: ValSamples,
    deadline: float | None = None,
) -> tuple[Int8Record, bytes | None]:
    """Make INT8 by each calibration method, choose by validation accuracy, measure, and decide.

    Args:
        spec: Limits, and how many calibration pictures.
        core: The network, from ``pixels`` to logits.
        fp32: The whole FP32 model, from pictures to probabilities.
        preprocess: What ``pixels`` are of a picture; these nodes stay in float.
        train: Calibrates, and nothing else does.
        val: Chooses the method and judges the loss.
        deadline: Unix time; where the estimate does not fit, INT8 is left out with that reason.

    Returns:
        The record for ``bundle.json``, and the INT8 model where it is kept.
    """
    began = time.time()
    chosen = train.take(spread(len(train), spec.calibration))
    session = open_session(fp32)
    needed = estimate_seconds(calibration=len(chosen), val=len(val), images_per_s=_rate(session, val))
    left = float("inf") if deadline is None else deadline - time.time() - _RESERVE_S
    if needed > left:
        return Int8Record(kept=False, reason=f"no time: about {needed:.0f} s needed, {max(0.0, left):.0f} s left"), None
    try:
        models = _by_method(core, chosen, preprocess, num_classes=_num_classes(session))
    except Exception as error:  # the quantizer raises what it likes on graphs that it does not know
        cause = str(error).strip().splitlines() or [""]
        return Int8Record(kept=False, reason=f"not quantizable: {type(error).__name__}: {cause[0][:200]}"), None
    sessions: dict[str, Any] = {"fp32": session}
    sessions.update({method: open_session(model) for method, model in models.items()})
    answers = _answers(sessions, val)
    accuracy = {name: float((rows == val.labels).mean()) for name, rows in answers.items()}
    best = max(models, key=lambda m: accuracy[m])
    rates = _rates({"fp32": session, "int8": sessions[best]}, val)
    figures = Int8Figures(
        fp32=VariantFigures(accuracy=accuracy["fp32"], images_per_s=rates["fp32"], bytes=len(fp32)),
        int8=VariantFigures(accuracy=accuracy[best], images_per_s=rates["int8"], bytes=len(models[best])),
    )
    decision = decide(figures, spec)
    conditions = Int8Conditions(
        method=best,
        accuracy_by_method={m: accuracy[m] for m in models},
        agreement=float((answers["fp32"] == answers[best]).mean()),
        calibration_count=len(chosen),
        calibration_ids=hashlib.sha256(np.asarray(chosen.ids, dtype="<i8").tobytes()).hexdigest()[:16],
        val_count=len(val),
        batch=_SPEED_BATCH,
        threads=os.cpu_count() or 1,
        seconds=round(time.time() - began, 2),
    )
    record = Int8Record(
        kept=decision.kept, reason=decision.reason, fp32=figures.fp32, int8=figures.int8, conditions=conditions
    )
    return record, models[best] if decision.kept else None


def _by_method(
    core: onnx.ModelProto, chosen: TrainSamples, preprocess: Preprocess, *, num_classes: int
) -> dict[CalibrationMethod, bytes]:
    session = open_session(preprocess_model(preprocess).SerializeToString())
    first: list[npt.NDArray[np.float32]] = []

    def batches() -> Iterator[npt.NDArray[np.float32]]:
        for _, pictures in decoded(chosen, range(len(chosen)), chunk=8):
            pixels = np.concatenate([session.run([PIXELS], {INPUT: p[None]})[0] for p in pictures])
            if not first:
                first.append(pixels[:1])
            yield pixels

    seen = observe(core, batches())
    return {
        method: with_preprocess(
            quantize_core(core, ranges(seen, method), first[0]), preprocess, num_classes
        ).SerializeToString()
        for method in METHODS
    }


def _answers(sessions: Mapping[str, Any], val: ValSamples) -> dict[str, npt.NDArray[np.int64]]:
    """Name → (N,) predicted class of every validation picture; each is decoded once."""
    answers = {name: np.empty(len(val), dtype=np.int64) for name in sessions}
    for positions, pictures in decoded(val, range(len(val))):
        for part in group_by_size(pictures):
            batch = np.stack([pictures[i] for i in part])
            rows = [positions[i] for i in part]
            for name, session in sessions.items():
                answers[name][rows] = session.run([OUTPUT], {INPUT: batch})[0].argmax(axis=1)
    return answers


def _num_classes(session: Any) -> int:
    return int(session.get_outputs()[0].shape[1])


def _sample_batch(val: ValSamples, count: int) -> npt.NDArray[np.uint8]:
    """The first validation picture, ``count`` times: speed does not depend on what is seen."""
    picture: ImageArray = next(iter(decoded(val, [0])))[1][0]
    return np.repeat(picture[None], count, axis=0)


def _rate(session: Any, val: ValSamples) -> float:
    batch = _sample_batch(val, _SPEED_BATCH)
    return interleaved_rates({"": lambda: session.run([OUTPUT], {INPUT: batch})}, items=len(batch), repeats=3)[""]


def _rates(sessions: Mapping[str, Any], val: ValSamples) -> dict[str, float]:
    batch = _sample_batch(val, _SPEED_BATCH)
    calls = {name: _call(session, batch) for name, session in sessions.items()}
    return interleaved_rates(calls, items=len(batch), repeats=15)


def _call(session: Any, batch: npt.NDArray[np.uint8]) -> Any:
    return lambda: session.run([OUTPUT], {INPUT: batch})
