"""Fine-tuning with the statistics of batch norms fixed: each norm is folded into its convolution while training.

What a norm does with fixed statistics is a scale and a shift a channel, so that convolution, norm and activation are
one call forward and no norm is left in the backward pass; its scale and shift are trained all the same. Names, shapes
and meaning of the state_dict stay. A training step of EfficientNet-Lite0 gets about 1.5 times faster (bf16), and one
that starts from a head fitted on frozen features starts where that head was fitted.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autodl_ray.models.depthwise import input_gradient, weight_gradient
from autodl_ray.models.layers import PaddedConv2d, is_depthwise

__all__ = ["freeze_norms", "is_folded"]

_RELU6 = "relu6"


def freeze_norms(network: nn.Module, image_size: int) -> int:
    """Fix the statistics of every batch norm that follows a convolution, and fold it while computing.

    Args:
        network: Changed in place; (N, 3, S, S) → anything.
        image_size: S, to find out which norm follows which convolution.

    Returns:
        How many norms are folded.
    """
    pairs = _pairs(network, image_size)
    for conv, norm in pairs:
        conv.__dict__["norm"] = norm  # beside the registered modules: the state_dict keeps its names
        conv.__dict__["activation"] = _activation(norm)
        conv.__dict__["pads_first"] = conv.pads if isinstance(conv, PaddedConv2d) else None
        conv.__class__ = _FoldedConv2d
        norm.__class__ = _FoldedNorm
    return len(pairs)


def is_folded(norm: nn.Module) -> bool:
    """Whether a norm is applied by its convolution, with fixed statistics."""
    return isinstance(norm, _FoldedNorm)


def _activation(norm: nn.BatchNorm2d) -> nn.Module | str | None:
    """The activation inside timm's norms; plain ones have none."""
    activation = getattr(norm, "act", None)
    if isinstance(activation, nn.ReLU6):
        return _RELU6
    return activation if isinstance(activation, nn.Module) and not isinstance(activation, nn.Identity) else None


def _pairs(network: nn.Module, image_size: int) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    made: dict[int, tuple[Tensor, nn.Conv2d]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_conv(module: nn.Module, args: Any, output: Tensor) -> None:
        made[id(output)] = (output, cast(nn.Conv2d, module))  # the tensor is kept, so that its id stays its own

    def before_norm(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if id(args[0]) in made:
            pairs.append((made[id(args[0])][1], cast(nn.BatchNorm2d, module)))

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            hooks.append(module.register_forward_hook(after_conv))
        elif isinstance(module, nn.BatchNorm2d) and module.affine and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(before_norm))
    training = network.training
    device = next(network.parameters()).device
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, image_size, image_size, device=device))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return pairs


class _FoldedNorm(nn.BatchNorm2d):
    """Holds the parameters; its convolution applies them."""

    def forward(self, input: Tensor) -> Tensor:
        return input


class _FoldedConv2d(nn.Conv2d):
    """A convolution that applies its norm and activation too."""

    norm: nn.BatchNorm2d
    activation: nn.Module | str | None
    pads_first: tuple[int, int, int, int] | None

    def forward(self, input: Tensor) -> Tensor:
        norm = self.norm
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = self.weight * scale.view(-1, 1, 1, 1)
        bias = norm.bias - norm.running_mean * scale
        padding = cast("tuple[int, int]", self.padding)
        if self.pads_first is not None:
            input, padding = F.pad(input, self.pads_first), (0, 0)
        if input.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch._C._has_mkldnn:
            return self._in_bf16(input, weight, bias, padding)
        result = F.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)
        return self._activate(result)

    def _in_bf16(self, input: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]) -> Tensor:
        relu6 = self.activation == _RELU6
        result = cast(
            Tensor,
            _ConvRelu6.apply(
                input.bfloat16(),
                weight.bfloat16(),
                bias.bfloat16(),
                self.stride,
                padding,
                self.dilation,
                self.groups,
                is_depthwise(self),
                relu6,
            ),
        )
        return result if relu6 else self._activate(result)

    def _activate(self, x: Tensor) -> Tensor:
        if self.activation == _RELU6:
            return F.relu6(x, inplace=True)
        return cast(Tensor, self.activation(x)) if isinstance(self.activation, nn.Module) else x


class _ConvRelu6(torch.autograd.Function):
    """Convolution, bias and (``relu6``) clamp to [0, 6]: one call forward, and no stored input of the clamp."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
        depthwise: bool,
        relu6: bool,
    ) -> Tensor:
        if relu6:
            # The clamp inside oneDNN's call is free; clamp_ alone takes four times as long as the convolution.
            result = torch.ops.mkldnn._convolution_pointwise(
                x, weight, bias, padding, stride, dilation, groups, "hardtanh", [0.0, 6.0], ""
            )
        else:
            result = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        ctx.save_for_backward(x, weight, result if relu6 else None)
        ctx.settings = (stride, padding, dilation, groups, depthwise)
        return cast(Tensor, result)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, result = ctx.saved_tensors
        stride, padding, dilation, groups, depthwise = ctx.settings
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        if result is not None:
            gradient = torch.ops.aten.hardtanh_backward(gradient, result, 0, 6)
        if not depthwise:
            mask = [ctx.needs_input_grad[0], True, True]
            dx, dw, db = torch.ops.aten.convolution_backward(
                gradient, x, weight, [len(weight)], stride, padding, dilation, False, [0, 0], groups, mask
            )
            return (dx, dw, db, *[None] * 6)
        dx = input_gradient(x, weight, gradient, stride[0], padding[0]) if ctx.needs_input_grad[0] else None
        dw = weight_gradient(x, weight, gradient, stride[0], padding[0])
        return (dx, dw, gradient.sum((0, 2, 3)), *[None] * 6)
