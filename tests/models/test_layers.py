"""Our layers do what torch's and timm's do: padding, and the gradients of depthwise convolutions."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F

from autodl_ray.models.depthwise import depthwise_conv2d
from autodl_ray.models.layers import DepthwiseConv2d, PaddedConv2d, fix_same_padding, quicken_depthwise


@pytest.mark.parametrize(("image_size", "tried"), [(96, 96), (96, 64), (100, 100), (45, 45)])
def test_fixed_padding_is_timms(image_size: int, tried: int) -> None:
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    x = torch.randn(1, 3, tried, tried)
    with torch.inference_mode():
        before, names = network(x), list(network.state_dict())
        fix_same_padding(network, image_size)
        quicken_depthwise(network)
        after = network(x)
    assert torch.allclose(before, after, atol=1e-5)
    assert list(network.state_dict()) == names
    assert sum(isinstance(m, PaddedConv2d) for m in network.modules()) == 5
    assert sum(isinstance(m, DepthwiseConv2d) for m in network.modules()) == 12


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("side", [9, 12])
def test_depthwise_gradients_are_torchs(kernel: int, stride: int, padding: int, side: int) -> None:
    torch.manual_seed(kernel * 100 + stride * 10 + padding)
    x = torch.randn(3, 8, side, side).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(8, 1, kernel, kernel, requires_grad=True)
    result = depthwise_conv2d(x, weight, stride=stride, padding=padding)
    sent = torch.randn_like(result)
    ours = torch.autograd.grad(result, (x, weight), sent)
    exact_x, exact_weight = x.detach().float().requires_grad_(), weight.detach().clone().requires_grad_()
    exact = F.conv2d(exact_x, exact_weight, None, stride, padding, 1, 8)
    theirs = torch.autograd.grad(exact, (exact_x, exact_weight), sent.float())
    assert result.dtype == torch.bfloat16
    assert ours[1].dtype == torch.float32
    for got, wanted in zip((result, *ours), (exact, *theirs), strict=True):
        assert got.shape == wanted.shape
        assert (got.float() - wanted).abs().max() <= 0.02 * wanted.abs().max()


def test_depthwise_is_plain_where_it_is_not_trained_in_bf16() -> None:
    conv = torch.nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
    network = torch.nn.Sequential(conv, torch.nn.Conv2d(4, 4, 1))
    x = torch.randn(1, 4, 6, 6)
    before = network(x)
    quicken_depthwise(network)
    assert type(network[0]) is DepthwiseConv2d
    assert type(network[1]) is torch.nn.Conv2d
    assert torch.equal(network(x), before)
