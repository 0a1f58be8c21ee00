"""The exporter: both routes, any batch, the network left alone, and errors that say why."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from autodl_ray.errors import StageError
from autodl_ray.export import onnx as exporter
from autodl_ray.export.onnx import export_core
from autodl_ray.models.classifier import build
from autodl_ray.models.predictor import open_session


class _SplitsTheBatch(nn.Module):
    """Loops over the batch in Python: a trace with one picture forgets the others, so it must not be used."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.head(x.mean(dim=(2, 3)))
        return rows if x.shape[0] == 1 else rows + 1.0


@pytest.mark.parametrize("name", ["pixels", "small_cnn"])
def test_small_networks_take_the_fast_route_and_any_batch(name: str) -> None:
    model = build(name, num_classes=4, image_size=16, weights="none").train()
    before = copy.deepcopy(model.state_dict())
    core, route = export_core(model, 16)
    assert route == "trace"
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(node.op_type == "BatchNormalization" for node in core.graph.node)
    pixels = torch.randn(7, 3, 16, 16)
    with torch.no_grad():
        wanted = model.eval()(pixels).numpy()
    seen = open_session(core.SerializeToString()).run(["logits"], {"pixels": pixels.numpy()})[0]
    np.testing.assert_allclose(seen, wanted, atol=1e-4)


@pytest.mark.parametrize("size", [8, 28])
def test_residuals_and_norms_after_a_maximum_take_the_fast_route(size: int) -> None:
    model = build("small_resnet", num_classes=4, image_size=size, weights="none").train()
    with torch.no_grad():
        for _ in range(3):  # statistics and signs of a trained network: a maximum does not commute with a negative one
            model(torch.randn(8, 3, size, size))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(-0.5, 1.5)
    core, route = export_core(model, size)
    assert route == "trace"
    pixels = torch.randn(5, 3, size, size)
    with torch.no_grad():
        wanted = model.eval()(pixels).numpy()
    seen = open_session(core.SerializeToString()).run(["logits"], {"pixels": pixels.numpy()})[0]
    np.testing.assert_allclose(seen, wanted, atol=1e-4)


def test_dynamo_gives_the_same_answers() -> None:
    model = build("pixels", num_classes=3, image_size=8, weights="none").eval()
    with exporter._quiet():
        graph = exporter._by_dynamo(model, 8)
    assert exporter._largest_error(model, graph, 8)[0] < 1e-5


def test_a_graph_that_answers_otherwise_is_refused() -> None:
    with pytest.raises(StageError, match="could not be exported") as caught:
        export_core(_SplitsTheBatch(), 8)
    assert "trace: logits differ by" in str(caught.value)
    assert "dynamo:" in str(caught.value)


@pytest.mark.slow
def test_lite0_exports_fast_without_shape_arithmetic() -> None:
    model = build("efficientnet_lite0", num_classes=6, image_size=224, weights="packaged").eval()
    core, route = export_core(model, 224)
    assert route == "trace"
    assert {n.op_type for n in core.graph.node} <= {"Conv", "Clip", "Add", "GlobalAveragePool", "Flatten", "Gemm"}
