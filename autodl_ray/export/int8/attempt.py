"""The climb: rung after rung while the limits are missed and there is time, then the decision and its record."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from autodl_ray.artifacts import TrainSamples, ValSamples
from autodl_ray.artifacts.bundle import Int8Attempt, Int8Conditions, Int8Record, VariantFigures
from autodl_ray.errors import in_short
from autodl_ray.export.bench.edge import measure_edge, pick_edge
from autodl_ray.export.int8.calibration import METHODS
from autodl_ray.export.int8.gate import Decision, Int8Figures, decide
from autodl_ray.export.int8.judge import Judge
from autodl_ray.export.int8.ladder import Outcome, Rung, next_rung
from autodl_ray.export.int8.layers import layers_of, linear_share, named
from autodl_ray.export.int8.rungs import Made, climb
from autodl_ray.export.int8.workshop import Workshop
from autodl_ray.export.pictures import decoded, spread
from autodl_ray.export.speed import SpeedRatio
from autodl_ray.images import Preprocess
from autodl_ray.spec import ExportSpec

__all__ = ["estimate_seconds", "rung_seconds", "try_int8"]

_BATCH = 8
_RESERVE_S = 5.0  # of the time left that INT8 never plans to use
_QAT_SHARE = 0.7  # of the time left
_QAT_MOST_S = 600.0
_SAME_SPEED: tuple[Rung, ...] = ("equalised", "qat")  # as the static rung: the graph is the same


@dataclass
class _Climb:
    """What was made so far."""

    made: dict[Rung, Made] = field(default_factory=dict)
    speeds: dict[Rung, tuple[SpeedRatio, float, float]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    tried: list[Int8Attempt] = field(default_factory=list)
    stopped: str = ""


def estimate_seconds(*, calibration: int, val: int, images_per_s: float, methods: int = len(METHODS)) -> float:
    """Estimate how long the first rung takes, from the speed of FP32.

    A calibration picture costs about three FP32 answers; a validation picture one, and at most one more a method.
    """
    return 2.0 + 1.5 * methods + (3 * calibration + (1 + methods) * val) / images_per_s


def rung_seconds(*, calibration: int, val: int, images_per_s: float, layers: int) -> dict[Rung, float]:
    """Estimate what each rung takes at least, from the speed of FP32.

    Args:
        calibration: Pictures that calibrate.
        val: Pictures of the validation split.
        images_per_s: Of FP32.
        layers: How many can be in 8 bits.
    """
    return {
        "static": estimate_seconds(calibration=calibration, val=val, images_per_s=images_per_s),
        "equalised": 5.0 + (10 * calibration + 3 * val) / images_per_s,
        "mixed": 3.0 + layers * (0.1 + 32 / images_per_s) + 3 * val / images_per_s,
        "qat": 5.0 + (320 * 15 + val) / images_per_s,
        "dynamic": 3.0 + val / images_per_s,
        "weights": 3.0 + val / images_per_s,
    }


def try_int8(
    spec: ExportSpec,
    core: onnx.ModelProto,
    fp32: bytes,
    *,
    preprocess: Preprocess,
    train: TrainSamples,
    val: ValSamples,
    deadline: float | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda note: None,
) -> tuple[Int8Record, bytes | None]:
    """Make INT8 rung by rung until the limits are kept, measure, and decide.

    Args:
        spec: Limits, which rungs, and how many calibration pictures.
        core: The network, from ``pixels`` to logits.
        fp32: The whole FP32 model, from pictures to probabilities.
        preprocess: What ``pixels`` are of a picture; these nodes stay in float.
        train: Calibrates (and trains, on the rung that does), and nothing else does.
        val: Chooses among the ways and judges the loss.
        deadline: Unix time; a rung whose estimate does not fit is left out with that reason.
        seed: Of the rung that trains.
        tell: Is told what is being tried.

    Returns:
        The record for ``bundle.json``, and the INT8 model where it is kept.
    """
    began = time.time()
    threads, batch = (1, 1) if spec.target == "edge" else (0, _BATCH)
    judge = Judge(fp32, val, batch=batch, num_threads=threads)
    chosen = train.take(spread(len(train), spec.calibration))
    workshop = Workshop(named(core), preprocess, judge.num_classes, chosen, train)
    climbed = _climbed(spec, workshop, judge, val=len(val), deadline=deadline, seed=seed, tell=tell)
    best = _best(climbed, spec)
    if best is None:
        notes = [f"{a.rung}: {a.note}" for a in climbed.tried if a.note]
        reason = f"not quantizable: {'; '.join(notes)}" if notes else climbed.stopped
        return Int8Record(kept=False, reason=reason), None
    made, (ratio, fp32_rate, int8_rate) = climbed.made[best], climbed.speeds[best]
    figures = Int8Figures(
        fp32=VariantFigures(accuracy=judge.fp32_accuracy, images_per_s=fp32_rate, bytes=len(fp32)),
        int8=VariantFigures(
            accuracy=float((made.answers == val.labels).mean()), images_per_s=int8_rate, bytes=len(made.model)
        ),
        loss=made.loss,
        speed=ratio,
    )
    decision = _decided(figures, spec, made.model, fp32, val)
    conditions = Int8Conditions(
        method=made.method or best,
        accuracy_by_method=dict(made.accuracies),
        agreement=float((judge.fp32_answers == made.answers).mean()),
        calibration_count=len(chosen),
        calibration_ids=workshop.ids(),
        val_count=len(val),
        batch=batch,
        threads=threads or os.cpu_count() or 1,
        seconds=round(time.time() - began, 2),
        rung=best,
        tried=tuple(climbed.tried),
        float_layers=made.in_float,
        lost_low=made.loss.low,
        lost_high=made.loss.high,
        speed_low=ratio.low,
        speed_high=ratio.high,
        stopped=climbed.stopped,
    )
    reason = decision.reason if best == "static" else f"{best} ({made.way}): {decision.reason}"
    record = Int8Record(kept=decision.kept, reason=reason, fp32=figures.fp32, int8=figures.int8, conditions=conditions)
    return record, made.model if decision.kept else None


def _decided(figures: Int8Figures, spec: ExportSpec, int8: bytes, fp32: bytes, val: ValSamples) -> Decision:
    """Hold INT8 against the limits; for a small machine also against FP32 in time and memory of one thread."""
    decision = decide(figures, spec)
    if spec.target != "edge" or not decision.kept:
        return decision
    height, width = next(iter(decoded(val, [0])))[1][0].shape[:2]
    with tempfile.TemporaryDirectory(prefix="autodl-edge-") as folder:
        files = {"fp32": Path(folder) / "fp32.onnx", "int8": Path(folder) / "int8.onnx"}
        files["fp32"].write_bytes(fp32)
        files["int8"].write_bytes(int8)
        measured = measure_edge(files, size=(height, width), lost={"int8": figures.drop})
    choice = pick_edge(measured, spec)
    return Decision(choice.variant == "int8", f"edge: {choice.reason}; {decision.reason}")


def _climbed(
    spec: ExportSpec,
    workshop: Workshop,
    judge: Judge,
    *,
    val: int,
    deadline: float | None,
    seed: int,
    tell: Callable[[str], None],
) -> _Climb:
    layers = len(layers_of(workshop.core))
    share = linear_share(workshop.core)
    seconds = rung_seconds(calibration=len(workshop.chosen), val=val, images_per_s=judge.rate(), layers=layers)
    climbed = _Climb()
    while True:
        left = float("inf") if deadline is None else deadline - time.time() - _RESERVE_S
        step = next_rung(spec, tuple(climbed.outcomes), linear_share=share, seconds=seconds, left_s=left)
        climbed.stopped = step.reason
        if step.rung is None:
            return climbed
        tell(f"INT8: {step.reason}")
        until = time.time() + min(_QAT_SHARE * left, _QAT_MOST_S)
        _take(climbed, step.rung, workshop, judge, spec=spec, until=until, seed=seed)


def _take(
    climbed: _Climb, rung: Rung, workshop: Workshop, judge: Judge, *, spec: ExportSpec, until: float, seed: int
) -> None:
    """Climb one rung and write down what came of it."""
    began = time.time()
    static = {r: m for r, m in climbed.made.items() if r in ("static", "equalised")}
    before = static[min(static, key=lambda r: static[r].loss.lost)] if static else None
    try:
        made = climb(rung, workshop, judge, before=before, spec=spec, until=until, seed=seed)
    except Exception as error:  # the quantizer raises what it likes on graphs that it does not know
        climbed.outcomes.append(Outcome(rung, None))
        climbed.tried.append(Int8Attempt(rung=rung, note=in_short(error), seconds=_since(began)))
        return
    climbed.made[rung] = made
    climbed.speeds[rung] = _speed(climbed.speeds, rung, made, judge, spec.min_speedup)
    speedup = climbed.speeds[rung][0].ratio
    climbed.outcomes.append(Outcome(rung, made.loss.lost, speedup))
    climbed.tried.append(
        Int8Attempt(
            rung=rung, way=made.way, lost=made.loss.lost, speedup=speedup, note=made.note, seconds=_since(began)
        )
    )


def _speed(
    known: Mapping[Rung, tuple[SpeedRatio, float, float]], rung: Rung, made: Made, judge: Judge, limit: float
) -> tuple[SpeedRatio, float, float]:
    if rung in _SAME_SPEED and "static" in known:
        return known["static"]
    return judge.speeds(made.model, limit)


def _since(began: float) -> float:
    return round(time.time() - began, 2)


def _best(climbed: _Climb, spec: ExportSpec) -> Rung | None:
    """Return the rung that keeps most limits, then the one that loses least, then the one that came first."""
    made = [o for o in climbed.outcomes if o.drop is not None]
    if not made:
        return None
    return min(made, key=lambda o: (-(o.accurate(spec) + o.fast(spec)), o.drop or 0.0)).rung
