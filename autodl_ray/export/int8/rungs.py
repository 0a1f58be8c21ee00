"""The rungs themselves: each makes INT8 models in its way and returns the best of them by validation accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from autodl_ray.export.int8.bias import corrected
from autodl_ray.export.int8.calibration import METHODS, CalibrationMethod, Range, observe, ranges
from autodl_ray.export.int8.equalise import equalised
from autodl_ray.export.int8.gate import PairedLoss
from autodl_ray.export.int8.judge import Judge, Predicted
from autodl_ray.export.int8.ladder import Rung
from autodl_ray.export.int8.linear import dynamic_core, weights_core
from autodl_ray.export.int8.sensitivity import float_sets, sensitivities
from autodl_ray.export.int8.workshop import Workshop
from autodl_ray.spec import ExportSpec

__all__ = ["Made", "climb"]

_SENSITIVITY_PICTURES = 32


@dataclass(frozen=True)
class Made:
    """The best INT8 model of a rung.

    Attributes:
        model: From pictures to probabilities.
        way: What of the rung it is, e.g. the calibration method.
        answers: (N,) predicted classes of the validation split.
        loss: Beside FP32.
        accuracies: Way → validation accuracy, of all that were tried.
        core: The float network that was quantized.
        ranges: Tensor → range.
        method: Calibration method behind the ranges; empty where there are none.
        in_float: Layers that stayed in float.
        note: What a person should know.
    """

    model: bytes
    way: str
    answers: Predicted
    loss: PairedLoss
    accuracies: Mapping[str, float]
    core: onnx.ModelProto | None = None
    ranges: Mapping[str, Range] | None = None
    method: CalibrationMethod | None = None
    in_float: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class _Draft:
    core: onnx.ModelProto
    quantized: onnx.ModelProto
    ranges: Mapping[str, Range] | None = None
    method: CalibrationMethod | None = None


def climb(
    rung: Rung, workshop: Workshop, judge: Judge, *, before: Made | None, spec: ExportSpec, until: float, seed: int
) -> Made:
    """Make the INT8 models of a rung and judge them.

    Args:
        rung: Which.
        workshop: The network and its calibration pictures.
        judge: The validation split.
        before: The best of the static rungs so far; None for those that need none.
        spec: The limits.
        until: Unix time by which the rung that trains has to be done with it.
        seed: Of that training.

    Raises:
        Exception: The quantizer and onnxruntime raise what they like on graphs that they do not know.
    """
    if rung == "static":
        return _static(workshop, judge)
    if rung in ("dynamic", "weights"):
        make: Callable[[onnx.ModelProto], onnx.ModelProto] = dynamic_core if rung == "dynamic" else weights_core
        return _best(workshop, judge, {rung: _Draft(workshop.core, make(workshop.core))})
    assert before is not None
    if rung == "equalised":
        return _equalised(workshop, judge, before)
    if rung == "mixed":
        return _mixed(workshop, judge, before, spec)
    return _trained(workshop, judge, before, until=until, seed=seed)


def _static(workshop: Workshop, judge: Judge) -> Made:
    drafts: dict[str, _Draft] = {}
    for method in METHODS:
        spans = workshop.ranges(method)
        drafts[method] = _Draft(workshop.core, workshop.quantized(workshop.core, spans), spans, method)
    return _best(workshop, judge, drafts)


def _equalised(workshop: Workshop, judge: Judge, before: Made) -> Made:
    """Corrections alone, like ranges alone, and both, with the calibration method that was best."""
    method, core, spans = before.method, before.core, before.ranges
    assert method is not None
    assert core is not None
    assert spans is not None
    few = workshop.few(len(workshop.chosen))
    alike = equalised(core, few)
    alike_spans = ranges(observe(alike, few), method)
    fixed, alike_fixed = corrected(core, spans, few), corrected(alike, alike_spans, few)
    drafts = {
        "bias": _Draft(fixed, workshop.quantized(fixed, spans), spans, method),
        "channels": _Draft(alike, workshop.quantized(alike, alike_spans), alike_spans, method),
        "channels and bias": _Draft(alike_fixed, workshop.quantized(alike_fixed, alike_spans), alike_spans, method),
    }
    return _best(workshop, judge, drafts)


def _mixed(workshop: Workshop, judge: Judge, before: Made, spec: ExportSpec) -> Made:
    """The most sensitive layers stay in float: as few of 1, 2, 4, 8 … as keep the accuracy."""
    core, spans = before.core, before.ranges
    assert core is not None
    assert spans is not None
    found = sensitivities(core, spans, workshop.few(_SENSITIVITY_PICTURES))
    best: Made | None = None
    tried: dict[str, float] = {}
    for names in float_sets(found):
        model = workshop.whole(workshop.quantized(core, spans, in_float=names))
        answers = judge.predicted({"": model})[""]
        loss = judge.loss(answers)
        way = f"{len(names)} of {len(found)} layers in float"
        tried[way] = judge.fp32_accuracy - loss.lost
        made = Made(model, way, answers, loss, dict(tried), core, spans, before.method, names)
        if best is None or loss.lost < best.loss.lost:
            best = made
        if loss.lost <= spec.max_drop:
            break
    if best is None:
        raise ValueError("there are too few layers to keep some in float")
    return best


def _trained(workshop: Workshop, judge: Judge, before: Made, *, until: float, seed: int) -> Made:
    from autodl_ray.export.int8.qat import rounded_tensors, train_rounded

    core, spans = before.core, before.ranges
    assert core is not None
    assert spans is not None
    began = time.time()
    rounded = rounded_tensors(workshop.quantized(core, spans), spans)
    result = train_rounded(core, rounded, train=workshop.train, preprocess=workshop.preprocess, seed=seed, until=until)
    note = f"{result.steps} steps, {result.pictures} pictures, {time.time() - began:.0f} s"
    draft = _Draft(result.core, workshop.quantized(result.core, spans), spans, before.method)
    return _best(workshop, judge, {"trained": draft}, note=note)


def _best(workshop: Workshop, judge: Judge, drafts: Mapping[str, _Draft], *, note: str = "") -> Made:
    """Judge drafts; of equal accuracy the one that agrees with FP32 more often, then the first."""
    models = {way: workshop.whole(draft.quantized) for way, draft in drafts.items()}
    answers = judge.predicted(models)
    losses = {way: judge.loss(rows) for way, rows in answers.items()}
    best = max(models, key=lambda w: (-losses[w].lost, float((answers[w] == judge.fp32_answers).mean())))
    draft = drafts[best]
    return Made(
        models[best],
        best,
        answers[best],
        losses[best],
        {way: judge.fp32_accuracy - loss.lost for way, loss in losses.items()},
        draft.core,
        draft.ranges,
        draft.method,
        note=note,
    )
