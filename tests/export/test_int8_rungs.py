"""The rungs on small real networks: what each changes, and that it keeps what it must keep."""

from __future__ import annotations

import time

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from autodl_ray.export.graph import LOGITS, PIXELS, with_preprocess
from autodl_ray.export.int8 import try_int8
from autodl_ray.export.int8.bias import corrected
from autodl_ray.export.int8.calibration import observe, ranges
from autodl_ray.export.int8.equalise import equalised, links_of
from autodl_ray.export.int8.judge import Judge
from autodl_ray.export.int8.layers import alone, layers_of, linear_share, named, rounded_weight, weights_by_name
from autodl_ray.export.int8.linear import dynamic_core, weights_core
from autodl_ray.export.int8.qat import rounded_tensors, train_rounded
from autodl_ray.export.int8.quantize import quantize_core, with_short_names
from autodl_ray.export.int8.rungs import climb
from autodl_ray.export.int8.sensitivity import divergence, sensitivities
from autodl_ray.export.int8.torch_graph import GraphNetwork, UnknownOperator
from autodl_ray.export.int8.workshop import Workshop
from autodl_ray.export.onnx import export_core
from autodl_ray.export.pictures import spread
from autodl_ray.images import Preprocess
from autodl_ray.models.classifier import Classifier
from autodl_ray.models.predictor import open_session
from autodl_ray.seeding import rng_for
from autodl_ray.spec import ExportSpec
from tests.export.tiny import Shapes


class Uneven(nn.Module):
    """Convolutions with ReLU6 between them, one of them depthwise, whose channels have very different ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 3)
        with torch.no_grad():
            scale = torch.logspace(-2, 0.0, 8)
            self.first.weight *= scale[:, None, None, None]
            self.first.bias *= scale
            self.depth.weight /= scale[:, None, None, None]  # so that every channel counts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(self.first(x))
        x = nn.functional.relu(self.depth(x))
        return self.head(self.last(x).mean((2, 3)))


@pytest.fixture(scope="module")
def uneven() -> onnx.ModelProto:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Uneven().eval()
    return named(export_core(model, 16)[0])


@pytest.fixture(scope="module")
def batches() -> list[np.ndarray]:
    return [rng_for(0, "rungs", i).normal(size=(8, 3, 16, 16)).astype(np.float32) for i in range(4)]


def logits(model: onnx.ModelProto, batches: list[np.ndarray]) -> np.ndarray:
    session = open_session(model.SerializeToString())
    return np.concatenate([session.run([LOGITS], {PIXELS: b})[0] for b in batches])


def test_layers_have_names_of_their_own_and_shares(uneven: onnx.ModelProto) -> None:
    layers = layers_of(uneven)
    assert [layer.op for layer in layers] == ["Conv", "Conv", "Conv", "Gemm"]
    assert len({layer.name for layer in layers}) == 4
    weights = weights_by_name(uneven)
    assert linear_share(uneven) == pytest.approx(18 / (8 * 27 + 8 * 9 + 48 + 18))
    rounded = rounded_weight(weights[layers[0].weight], 0)
    assert all(len(np.unique(channel)) <= 255 for channel in rounded)
    assert np.abs(rounded - weights[layers[0].weight]).max() < np.abs(weights[layers[0].weight]).max() / 200


def test_equalised_channels_answer_the_same_and_quantize_better(
    uneven: onnx.ModelProto, batches: list[np.ndarray]
) -> None:
    assert [(link.depthwise) for link in links_of(uneven)] == [True, False]
    alike = equalised(uneven, batches)
    wanted = logits(uneven, batches)
    np.testing.assert_allclose(logits(alike, batches), wanted, atol=1e-4)
    errors = []
    for core in (uneven, alike):
        quantized = quantize_core(core, ranges(observe(core, batches), "minmax"), batches[0][:1])
        errors.append(float(np.abs(logits(quantized, batches) - wanted).mean()))
    assert errors[1] < 0.8 * errors[0]


def test_corrected_biases_take_the_shift_away(batches: list[np.ndarray]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    core = named(export_core(net.eval(), 16)[0])
    spans = ranges(observe(core, batches), "minmax")
    spans[PIXELS] = (spans[PIXELS][0], 0.1 * spans[PIXELS][1])  # what is clipped at one end alone shifts the means
    fixed = corrected(core, spans, batches)
    assert len(fixed.graph.initializer) == len(core.graph.initializer) + 1  # the convolution had no bias
    wanted = logits(core, batches).mean(axis=0)
    shifts = [
        float(np.abs(logits(quantize_core(c, spans, batches[0][:1]), batches).mean(axis=0) - wanted).mean())
        for c in (core, fixed)
    ]
    assert shifts[1] < 0.2 * shifts[0]


def test_the_layer_that_suffers_is_found(uneven: onnx.ModelProto, batches: list[np.ndarray]) -> None:
    spans = ranges(observe(uneven, batches), "minmax")
    victim = layers_of(uneven)[2]
    spans[victim.output] = (spans[victim.output][0] * 30, spans[victim.output][1] * 30)
    found = sensitivities(uneven, spans, batches)
    assert max(found, key=lambda name: found[name]) == victim.name
    assert divergence(logits(uneven, batches), logits(alone(uneven, victim, spans), batches)) == found[victim.name]


def test_short_names_change_nothing_but_the_size(uneven: onnx.ModelProto, batches: list[np.ndarray]) -> None:
    whole = quantize_core(uneven, ranges(observe(uneven, batches), "minmax"), batches[0][:1])
    short = with_short_names(whole)
    assert len(short.SerializeToString()) < 0.8 * len(whole.SerializeToString())
    np.testing.assert_array_equal(logits(short, batches), logits(whole, batches))


def test_a_layer_in_float_stays_in_float_in_onnxruntime(uneven: onnx.ModelProto, batches: list[np.ndarray]) -> None:
    """Its optimizer would quantize the depthwise layer again, with one scale for all channels."""
    spans = ranges(observe(uneven, batches), "minmax")
    depthwise = layers_of(uneven)[1].name
    mixed = quantize_core(uneven, spans, batches[0][:1], in_float=(depthwise,)).SerializeToString()
    plain = ort.SessionOptions()
    plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    wanted, seen = (
        session.run([LOGITS], {PIXELS: batches[0]})[0]
        for session in (ort.InferenceSession(mixed, plain, providers=["CPUExecutionProvider"]), open_session(mixed))
    )
    whole = quantize_core(uneven, spans, batches[0][:1])
    exact = logits(uneven, batches[:1])
    assert np.abs(seen - wanted).mean() < 0.5 * np.abs(logits(whole, batches[:1]) - exact).mean()
    assert np.abs(seen - exact).mean() < np.abs(logits(whole, batches[:1]) - exact).mean()


def test_the_torch_graph_rounds_like_the_quantized_one(model: Classifier, batches: list[np.ndarray]) -> None:
    core = named(export_core(model, 16)[0])
    plain = GraphNetwork(core, {}, in_float=tuple(layer.name for layer in layers_of(core)))
    with torch.no_grad():
        np.testing.assert_allclose(plain(torch.from_numpy(batches[0])).numpy(), logits(core, batches[:1]), atol=1e-4)
    spans = ranges(observe(core, batches), "percentile")
    quantized = quantize_core(core, spans, batches[0][:1])
    rounded = GraphNetwork(core, rounded_tensors(quantized, spans))
    with torch.no_grad():
        seen = rounded(torch.from_numpy(batches[0])).numpy()
    wanted, exact = logits(quantized, batches[:1]), logits(core, batches[:1])
    assert np.abs(seen - wanted).mean() < 0.5 * np.abs(exact - wanted).mean()


def test_an_unknown_operator_is_named() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.erf(x).mean((2, 3))

    core = named(export_core(Odd().eval(), 16)[0])
    with pytest.raises(UnknownOperator, match="Erf"):
        GraphNetwork(core, {})


def test_training_with_the_rounding_wins_back_what_coarse_ranges_lose(
    model: Classifier, shapes: Shapes, preprocess: Preprocess
) -> None:
    core = named(export_core(model, 32)[0])
    workshop = Workshop(core, preprocess, 3, shapes.train.take(spread(48, 24)), shapes.train)
    spans = {name: (8 * low, 8 * high) for name, (low, high) in workshop.ranges("minmax").items()}
    rounded = rounded_tensors(workshop.quantized(core, spans), spans)
    result = train_rounded(core, rounded, train=shapes.train, preprocess=preprocess, seed=0, until=time.time() + 60)
    assert result.steps == 9
    assert result.pictures == 144
    few = workshop.few(24)
    wanted = logits(core, few)
    before, after = (divergence(wanted, logits(workshop.quantized(c, spans), few)) for c in (core, result.core))
    assert after < before
    again = train_rounded(core, rounded, train=shapes.train, preprocess=preprocess, seed=0, until=time.time() + 60)
    same = weights_by_name(again.core)
    assert all(np.allclose(value, same[name]) for name, value in weights_by_name(result.core).items())
    assert train_rounded(core, rounded, train=shapes.train, preprocess=preprocess, seed=0, until=0.0).steps == 0


@pytest.mark.parametrize("way", ["dynamic", "weights"])
def test_ways_for_linear_layers(way: str, batches: list[np.ndarray]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(768, 64), nn.ReLU(), nn.Linear(64, 5)).eval()
    core = named(export_core(model, 16)[0])
    assert linear_share(core) == 1.0
    small = dynamic_core(core) if way == "dynamic" else weights_core(core)
    assert len(small.SerializeToString()) < 0.35 * len(core.SerializeToString())
    wanted, seen = logits(core, batches), logits(small, batches)
    assert 0.0 < np.abs(seen - wanted).max() < 0.1 * np.abs(wanted).max()


def test_every_rung_on_one_network(model: Classifier, shapes: Shapes, preprocess: Preprocess) -> None:
    core = named(export_core(model, 32)[0])
    judge = Judge(with_preprocess(core, preprocess, 3).SerializeToString(), shapes.val, batch=4)
    workshop = Workshop(core, preprocess, 3, shapes.train.take(spread(48, 24)), shapes.train)
    spec = ExportSpec(max_drop=0.0)
    static = climb("static", workshop, judge, before=None, spec=spec, until=0.0, seed=0)
    assert set(static.accuracies) == {"percentile", "mse", "entropy", "minmax"}
    for rung in ("equalised", "mixed", "qat"):
        made = climb(rung, workshop, judge, before=static, spec=spec, until=time.time() + 20, seed=0)
        assert made.loss.lost < 0.1
        assert made.loss.pictures == len(shapes.val)
        assert made.answers.shape == (len(shapes.val),)
        if rung == "mixed":
            assert 1 <= len(made.in_float) <= len(layers_of(core)) // 2
            assert len(made.model) > len(static.model)


def test_the_record_says_every_way_that_was_tried(model: Classifier, shapes: Shapes, preprocess: Preprocess) -> None:
    core = export_core(model, 32)[0]
    spec = ExportSpec(calibration=24, min_speedup=1e-6, max_drop=0.0)
    told: list[str] = []
    record, data = try_int8(
        spec,
        core,
        with_preprocess(core, preprocess, 3).SerializeToString(),
        preprocess=preprocess,
        train=shapes.train,
        val=shapes.val,
        tell=told.append,
    )
    how = record.conditions
    assert how is not None
    assert len(told) == len(how.tried) >= 1
    assert how.tried[0].rung == "static"
    assert how.tried[0].way in how.accuracy_by_method or how.rung != "static"
    assert record.kept == (data is not None)
    assert how.speed_low is not None
    assert how.speed_high is not None
    assert how.speed_low <= how.speed_high
    assert how.lost_low is not None
    assert how.lost_low <= 0.0 or not record.kept
    assert how.stopped in ("both limits are kept", "nothing is left to try")
