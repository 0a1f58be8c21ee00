"""A folded network computes and learns like the one with its norms in evaluation mode, and saves like it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from autodl_ray.models.classifier import Classifier, build
from autodl_ray.models.folding import freeze_norms


def network(name: str) -> Classifier:
    torch.manual_seed(0)
    model = build(name, num_classes=3, image_size=64, weights="none").eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics and scales that are not those of a new network
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def learn(model: Classifier, x: Tensor, *, bf16: bool) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logits = model(x)
    loss = nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 1]))
    loss.backward()
    return logits.detach().float(), {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("name", "norms"), [("efficientnet_lite0", 49), ("resnet18", 20), ("mobilenet_v3_small", 34), ("small_cnn", 3)]
)
def test_folded_is_the_same_function(name: str, norms: int) -> None:
    model = network(name)
    folded = copy.deepcopy(model)
    assert freeze_norms(folded.backbone, 64) == norms
    assert list(folded.state_dict()) == list(model.state_dict())
    x = torch.randn(4, 3, 64, 64)
    logits, gradients = learn(model, x, bf16=False)
    folded_logits, folded_gradients = learn(folded.train(), x, bf16=False)
    assert torch.allclose(folded_logits, logits, atol=1e-4)
    assert folded_gradients.keys() == gradients.keys()
    for key, wanted in gradients.items():
        assert (folded_gradients[key] - wanted).norm() <= 0.01 * wanted.norm() + 1e-5, key


def test_bf16_gradients_are_no_worse_than_torchs() -> None:
    model = network("efficientnet_lite0")
    folded = copy.deepcopy(model)
    freeze_norms(folded.backbone, 64)
    x = torch.randn(4, 3, 64, 64)
    _, exact = learn(model, x, bf16=False)

    def error(gradients: dict[str, Tensor]) -> float:
        errors = [float((gradients[k] - v).norm() / (v.norm() + 1e-9)) for k, v in exact.items()]
        return sorted(errors)[len(errors) // 2]

    plain = error(learn(model, x, bf16=True)[1])
    assert error(learn(folded, x, bf16=True)[1]) <= 1.2 * plain


def test_statistics_stay_and_weights_go_back_into_a_plain_network() -> None:
    model = network("efficientnet_lite0")
    folded = copy.deepcopy(model).train()
    freeze_norms(folded.backbone, 64)
    optimizer = torch.optim.SGD(folded.parameters(), lr=0.1)
    x = torch.randn(4, 3, 64, 64)
    learn(folded, x, bf16=True)
    optimizer.step()
    before, after = model.state_dict(), folded.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if "running" in k or "num_batches" in k)
    assert not torch.equal(before["backbone.blocks.0.0.conv_dw.weight"], after["backbone.blocks.0.0.conv_dw.weight"])
    assert not torch.equal(before["backbone.bn1.weight"], after["backbone.bn1.weight"])
    model.load_state_dict(copy.deepcopy(folded).state_dict())
    with torch.inference_mode():
        assert torch.allclose(model(x), folded.eval()(x), atol=1e-4)
