"""The first layer that differs is named: in ONNX by either exporter, in TorchScript and in OpenVINO."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from autodl_ray.export.formats.openvino import explain_openvino
from autodl_ray.export.formats.torchscript import explain_torchscript, scripted
from autodl_ray.export.graph import with_preprocess
from autodl_ray.export.layers import explain_onnx
from autodl_ray.export.onnx import Exporter, export_core, frozen_copy
from autodl_ray.images import Preprocess
from autodl_ray.models.classifier import Classifier, build
from autodl_ray.seeding import rng_for

SIDE = 16
RULE = Preprocess(SIDE, "pad", (0.4, 0.5, 0.6), (0.25, 0.3, 0.2))


@pytest.fixture(scope="module")
def network() -> Classifier:
    model = build("small_resnet", num_classes=4, image_size=SIDE, weights="none").train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, SIDE, SIDE))
    frozen = frozen_copy(model)
    assert isinstance(frozen, Classifier)
    return frozen


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return rng_for(0, "layers").integers(0, 256, (13, 22, 3), dtype=np.uint8)


def whole(network: Classifier, route: Exporter = "trace") -> onnx.ModelProto:
    core, used = export_core(network, SIDE, routes=[route])
    assert used == route
    return with_preprocess(core, RULE, 4)


def convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Conv"]


def damaged(model: onnx.ModelProto, name: str) -> bytes:
    """Scale one tensor of weights."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    tensor = next(t for t in copied.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.3), name))
    return copied.SerializeToString()


@pytest.mark.parametrize("number", [0, 3, -1])
def test_the_layer_is_named_in_a_traced_graph(network: Classifier, picture: np.ndarray, number: int) -> None:
    model = whole(network)
    node = convolutions(model)[number]
    wanted = node.name.removesuffix("/Conv").split("/")[-1]
    said = explain_onnx(network, damaged(model, node.input[1]), picture, RULE)
    named = said.split(" ")[0]
    assert isinstance(network.get_submodule(named), torch.nn.Conv2d)
    assert named.endswith(wanted)
    assert "differs by 0." in said
    assert ("the " in said) == (number != 0)


def test_the_layer_is_named_in_a_graph_of_dynamo(network: Classifier, picture: np.ndarray) -> None:
    model = whole(network, "dynamo")
    said = explain_onnx(network, damaged(model, convolutions(model)[2].input[1]), picture, RULE)
    convs = [p for p, m in network.named_modules() if isinstance(m, torch.nn.Conv2d)]
    before, after = convs[1], convs[3]
    order = [p for p, _ in network.named_modules()]
    assert order.index(before) < order.index(said.split(" ")[0]) < order.index(after)


def test_a_faithful_graph_has_no_such_layer(network: Classifier, picture: np.ndarray) -> None:
    assert explain_onnx(network, whole(network).SerializeToString(), picture, RULE).startswith("none by itself; ")


def test_the_preprocessing_is_looked_at_first(network: Classifier, picture: np.ndarray) -> None:
    model = whole(network)
    factor = next(t.name for t in model.graph.initializer if t.name.startswith("preprocess/factor"))
    said = explain_onnx(network, damaged(model, factor), picture, RULE)
    assert said.startswith("the preprocessing: pixels differ by 0.")


def test_a_layer_that_is_called_twice(picture: np.ndarray) -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3)
            self.act = torch.nn.ReLU(inplace=True)
            self.head = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.act(self.second(self.act(self.first(x)))).mean(dim=(2, 3)))

    model = Twice().eval()
    core, _ = export_core(model, SIDE)
    graph = with_preprocess(core, RULE, 4)
    assert explain_onnx(model, graph.SerializeToString(), picture, RULE).startswith("none by itself")
    said = explain_onnx(model, damaged(graph, convolutions(graph)[1].input[1]), picture, RULE)
    assert said.startswith("second (Conv2d): differs by")


def test_the_layer_is_named_in_torchscript(network: Classifier, picture: np.ndarray) -> None:
    core, how = scripted(network, SIDE)
    assert how == "trace"
    assert explain_torchscript(network, core, picture, RULE).startswith("none by itself")
    path = [p for p, m in network.named_modules() if isinstance(m, torch.nn.Conv2d)][2]
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.get_submodule(path).weight.mul_(1.3)
    core, _ = scripted(other, SIDE)
    assert explain_torchscript(network, core, picture, RULE).startswith(f"{path} (Conv2d): differs by")


def test_the_layer_is_named_in_openvino(network: Classifier, picture: np.ndarray) -> None:
    model = whole(network)
    assert explain_openvino(network, model.SerializeToString(), picture, RULE).startswith("none by itself")
    node = convolutions(model)[3]
    said = explain_openvino(network, damaged(model, node.input[1]), picture, RULE)
    assert said.split(" ")[0] == explain_onnx(network, damaged(model, node.input[1]), picture, RULE).split(" ")[0]
