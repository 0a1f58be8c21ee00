"""The layers that are ours: the small networks, and convolutions whose TensorFlow padding is fixed once."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autodl_ray.models.depthwise import depthwise_conv2d

__all__ = [
    "DepthwiseConv2d",
    "PaddedConv2d",
    "SmallCNN",
    "SmallResNet",
    "fix_same_padding",
    "is_depthwise",
    "quicken_depthwise",
]


class SmallCNN(nn.Module):
    """Three convolutions with batch norm; the resolution is halved after the first and the second.

    Args:
        width: Channels of the first convolution; the third has four times as many.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(3, width), nn.MaxPool2d(2), *_conv(width, 2 * width), nn.MaxPool2d(2), *_conv(2 * width, 4 * width)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, S, S) float to (N, 4 · width) features."""
        return cast(Tensor, self.pool(self.features(x)).flatten(1))


def _conv(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)


class SmallResNet(nn.Module):
    """A residual network of seven or ten convolutions, after ResNet-9 (Page, How to Train Your ResNet, 2018).

    The resolution is halved by a maximum before the norm instead of after it: the norm and the activation, which take
    more time than the convolution on a processor with matrix instructions, then see a quarter of the values (bf16,
    28 px, width 32: 105 ms a step of 128 instead of 132, one core of a Xeon with AMX).

    Args:
        width: Channels of the first convolution; there are four times as many in the end.
        halvings: How often the resolution is halved, 2 or 3.
    """

    def __init__(self, *, width: int, halvings: int) -> None:
        super().__init__()
        wide = 4 * width
        stages = [*_conv(3, width), *_halving(width, 2 * width), _Residual(2 * width)]
        stages += [*_halving(2 * width, wide), _Residual(wide)]
        if halvings > 2:
            stages += [*_halving(wide, wide), _Residual(wide)]
        self.features = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, S, S) float to (N, 4 · width) features."""
        return cast(Tensor, self.pool(self.features(x)).flatten(1))


class _Residual(nn.Module):
    """Two convolutions whose result is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*_conv(channels, channels), *_conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.branch(x))


def _halving(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    conv, norm, activation = _conv(channels_in, channels_out)
    return conv, nn.MaxPool2d(2), norm, activation


class PaddedConv2d(nn.Conv2d):
    """A convolution with its own padding a side: (left, right, top, bottom), constant in an exported graph."""

    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def forward(self, input: Tensor) -> Tensor:
        """Pad with zeros, then convolve."""
        padded = F.pad(input, self.pads)
        if _is_quick(self, padded):
            return depthwise_conv2d(padded, self.weight, stride=int(self.stride[0]), padding=0)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that trains in bf16 with the faster backward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve every channel with its own kernel."""
        if _is_quick(self, input):
            padding = cast("tuple[int, int]", self.padding)
            return depthwise_conv2d(input, self.weight, stride=int(self.stride[0]), padding=padding[0])
        return super().forward(input)


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Whether every channel has its own square kernel, without dilation."""
    square = len({*conv.kernel_size}) == len({*conv.stride}) == len({*conv.padding}) == 1
    return conv.groups == conv.in_channels == conv.out_channels > 1 and square and conv.dilation == (1, 1)


def _is_quick(conv: nn.Conv2d, x: Tensor) -> bool:
    trains = torch.is_grad_enabled() and conv.weight.requires_grad
    return trains and x.dtype == torch.bfloat16 and x.device.type == "cpu" and conv.bias is None and is_depthwise(conv)


def quicken_depthwise(network: nn.Module) -> None:
    """Let the depthwise convolutions of ``network`` train faster; names and results stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and is_depthwise(module):
            module.__class__ = DepthwiseConv2d


def fix_same_padding(network: nn.Module, image_size: int) -> None:
    """Replace timm's ``Conv2dSame``, which computes its padding anew from every input, by :class:`PaddedConv2d`.

    The computed padding becomes some 300 shape nodes in an exported graph, which then runs at about half the
    speed. The fixed padding is right for ``image_size``, and for every other size too when both are multiples
    of 32 (each of the five halvings then meets an even side).
    """
    same = [m for m in network.modules() if type(m).__name__ == "Conv2dSame"]
    sizes = _input_sizes(network, same, image_size)
    for module in same:
        conv = cast(nn.Conv2d, module)
        left, right = _same_pad(sizes[conv], kernel=int(conv.kernel_size[0]), stride=int(conv.stride[0]))
        conv.__class__ = PaddedConv2d
        cast(PaddedConv2d, conv).pads = (left, right, left, right)


def _same_pad(size: int, *, kernel: int, stride: int) -> tuple[int, int]:
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def _input_sizes(network: nn.Module, watched: list[nn.Module], image_size: int) -> dict[nn.Module, int]:
    sizes: dict[nn.Module, int] = {}

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        sizes[module] = int(args[0].shape[-1])

    hooks = [m.register_forward_pre_hook(note) for m in watched]
    training = network.training
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, image_size, image_size))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return sizes
