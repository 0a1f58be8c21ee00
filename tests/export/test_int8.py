"""INT8: the decision as a pure function, calibration, and the real thing on a small network."""

from __future__ import annotations

import time
from typing import get_args

import numpy as np
import onnxruntime as ort
import pytest

from autodl_ray.artifacts import Artifact
from autodl_ray.artifacts.bundle import VariantFigures, open_bundle
from autodl_ray.export import CandidateInputs
from autodl_ray.export.graph import preprocess_model, with_preprocess
from autodl_ray.export.int8 import Int8Figures, decide, estimate_seconds, try_int8
from autodl_ray.export.int8.calibration import ActivationSample, observe, ranges
from autodl_ray.export.int8.quantize import quantize_core
from autodl_ray.export.onnx import export_core
from autodl_ray.export.pictures import decoded, spread
from autodl_ray.export.speed import interleaved_rates
from autodl_ray.images import Fit, Preprocess
from autodl_ray.models.classifier import Classifier
from autodl_ray.models.predictor import open_session
from autodl_ray.seeding import rng_for
from autodl_ray.spec import ExportSpec
from tests.export.tiny import Shapes, fitted


def figures(*, speedup: float, drop: float) -> Int8Figures:
    return Int8Figures(
        fp32=VariantFigures(accuracy=0.9, images_per_s=100.0, bytes=1000),
        int8=VariantFigures(accuracy=0.9 - drop, images_per_s=100.0 * speedup, bytes=260),
    )


@pytest.mark.parametrize(
    ("speedup", "drop", "kept", "says"),
    [
        (2.0, 0.0, True, "2.00 times the speed of FP32, 0.00 points of validation accuracy lost"),
        (2.0, 0.005, True, "0.50 points of validation accuracy lost"),
        (2.0, -0.01, True, "1.00 points of validation accuracy gained"),
        (2.0, 0.006, False, "too inaccurate: 0.60 points of validation accuracy lost, at most 0.5 accepted"),
        (0.8, 0.0, False, "too slow: 0.80 times the speed of FP32, at least 1 asked for"),
        (0.8, 0.1, False, "too inaccurate"),
    ],
)
def test_decision(speedup: float, drop: float, kept: bool, says: str) -> None:
    decision = decide(figures(speedup=speedup, drop=drop), ExportSpec())
    assert decision.kept is kept
    assert says in decision.reason


def test_decision_follows_the_limits_of_the_spec() -> None:
    assert decide(figures(speedup=0.5, drop=0.1), ExportSpec(min_speedup=0.5, max_drop=0.11)).kept
    assert not decide(figures(speedup=1.4, drop=0.0), ExportSpec(min_speedup=1.5)).kept


def test_estimate_grows_with_work_and_falls_with_speed() -> None:
    base = estimate_seconds(calibration=128, val=328, images_per_s=200)
    assert 5 < base < 30
    assert estimate_seconds(calibration=256, val=328, images_per_s=200) > base
    assert estimate_seconds(calibration=128, val=328, images_per_s=400) < base


def test_ranges_by_method() -> None:
    values = rng_for(0, "values").normal(0, 1, 100_000).astype(np.float32)
    values[0] = 50.0  # one far value that minmax follows and the others leave out
    seen = {
        "a": ActivationSample(float(values.min()), 50.0, values),
        "positive": ActivationSample(2.0, 6.0, values[:1]),
    }
    assert ranges(seen, "minmax") == {"a": (float(values.min()), 50.0), "positive": (0.0, 6.0)}
    far = ranges(seen, "entropy")["a"][1]
    assert 10 < far < 50  # 256 steps of what is left tell the middle better than those of everything
    relu = np.maximum(values[1:], 0.0)
    kept = ranges({"relu": ActivationSample(0.0, float(relu.max()), relu)}, "entropy")["relu"][1]
    assert kept > 0.6 * relu.max()  # the many zeros are exact with any range and say nothing
    low, high = ranges(seen, "percentile")["a"]
    assert -5 < low < -3
    assert 3 < high < 5
    assert ranges({"a": ActivationSample(-40.0, 40.0, values[1:])}, "mse")["a"][1] == pytest.approx(
        12.0
    )  # least shrink


def test_observed_ranges_are_those_of_the_network(model: Classifier) -> None:
    core, _ = export_core(model, 32)
    pixels = rng_for(0, "pixels").normal(size=(10, 3, 32, 32)).astype(np.float32)
    seen = observe(core, [pixels[:4], pixels[4:]])
    logits = open_session(core.SerializeToString()).run(["logits"], {"pixels": pixels})[0]
    assert seen["logits"].low == pytest.approx(float(logits.min()), rel=1e-4)
    assert seen["logits"].high == pytest.approx(float(logits.max()), rel=1e-4)
    before_relu = next(n.input[0] for n in core.graph.node if n.op_type == "Relu")
    assert seen[before_relu].low >= 0.0
    assert {o for n in core.graph.node for o in n.output} <= set(seen)


@pytest.mark.parametrize("fit", get_args(Fit))
def test_preprocessing_stays_float_and_right_beside_quantized_nodes(
    model: Classifier, shapes: Shapes, fit: Fit
) -> None:
    """The transpose optimizer of onnxruntime may move nodes of the preprocessing in a graph with QDQ pairs."""
    rule = Preprocess(32, fit)
    core, _ = export_core(model, 32)
    before = open_session(preprocess_model(rule).SerializeToString())
    pictures = next(iter(decoded(shapes.train, range(8))))[1]
    pixels = np.concatenate([before.run(None, {"image": p[None]})[0] for p in pictures])
    quantized = quantize_core(core, ranges(observe(core, [pixels]), "minmax"), pixels[:1])
    assert {n.op_type for n in quantized.graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    whole = open_session(with_preprocess(quantized, rule, 3).SerializeToString())
    alone = open_session(quantized.SerializeToString())
    for position, picture in enumerate(pictures):
        logits = alone.run(None, {"pixels": pixels[position : position + 1]})[0].astype(np.float64)
        wanted = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        np.testing.assert_allclose(whole.run(None, {"image": picture[None]})[0], wanted, atol=2e-2)


def test_real_int8_of_a_small_network(candidate: Artifact, shapes: Shapes) -> None:
    _, info = open_bundle(candidate.path)
    record = info.int8
    assert record.kept
    assert record.fp32 is not None
    assert record.int8 is not None
    assert record.conditions is not None
    assert record.conditions.calibration_count == 24
    assert record.conditions.val_count == len(shapes.val)
    assert record.conditions.accuracy_by_method[record.conditions.method] == record.int8.accuracy
    assert record.int8.accuracy == max(record.conditions.accuracy_by_method.values())
    assert record.fp32.accuracy > 0.9
    assert record.int8.accuracy > record.fp32.accuracy - 0.1
    assert record.int8.bytes == candidate.file("model.int8.onnx").stat().st_size < record.fp32.bytes
    session = ort.InferenceSession(candidate.file("model.int8.onnx"))
    assert session.get_inputs()[0].type == "tensor(uint8)"


def test_int8_of_a_residual_network_is_tried_like_any_other(shapes: Shapes, inputs: CandidateInputs) -> None:
    rule = Preprocess(16, "pad", inputs.preprocess.mean, inputs.preprocess.std)
    core, _ = export_core(fitted(shapes, rule, name="small_resnet"), 16)
    record, data = try_int8(
        ExportSpec(calibration=24, max_drop=0.2, min_speedup=0.001),
        core,
        with_preprocess(core, rule, 3).SerializeToString(),
        preprocess=rule,
        train=inputs.train,
        val=inputs.val,
        deadline=None,
    )
    assert record.kept
    assert data is not None
    assert record.fp32 is not None
    assert record.int8 is not None
    assert record.fp32.accuracy > 0.8
    assert record.int8.accuracy > record.fp32.accuracy - 0.1
    assert record.int8.bytes < record.fp32.bytes / 2


def test_no_time_for_int8(inputs: CandidateInputs, model: Classifier) -> None:
    core, _ = export_core(model, 32)
    fp32 = with_preprocess(core, inputs.preprocess, 3).SerializeToString()
    record, data = try_int8(
        ExportSpec(),
        core,
        fp32,
        preprocess=inputs.preprocess,
        train=inputs.train,
        val=inputs.val,
        deadline=time.time() + 6.0,
    )
    assert data is None
    assert not record.kept
    assert record.reason.startswith("no time for static: about ")
    assert record.fp32 is None


def test_calibration_pictures_are_spread_over_the_split() -> None:
    assert spread(5, 9) == [0, 1, 2, 3, 4]
    assert spread(1768, 128)[-1] > 1700
    assert len(set(spread(1768, 128))) == 128


def test_decoded_keeps_the_order(shapes: Shapes) -> None:
    chunks = list(decoded(shapes.val, [5, 3, 9, 1, 0], chunk=2))
    assert [c[0] for c in chunks] == [[5, 3], [9, 1], [0]]
    alone = [next(iter(decoded(shapes.val, [p])))[1][0] for p in (5, 3)]
    for seen, wanted in zip(chunks[0][1], alone, strict=True):
        np.testing.assert_array_equal(seen, wanted)


def test_rates_are_interleaved_and_ordered() -> None:
    order: list[str] = []
    calls = {"fast": lambda: order.append("fast"), "slow": lambda: (order.append("slow"), time.sleep(0.002))}
    rates = interleaved_rates(calls, items=4, repeats=5)
    assert order == ["fast", "slow"] * 6
    assert rates["fast"] > rates["slow"]
