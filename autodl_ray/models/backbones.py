"""The backbones of the zoo: a function each, from the input side to a module (N, 3, S, S) → (N, D)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["efficientnet_lite0", "mobilenet_v3_small", "pixels", "resnet18", "small_cnn", "small_resnet"]

# torch, torchvision and timm take seconds to import, and the table of names is read by light commands.


def pixels(image_size: int) -> nn.Module:
    """Return the identity on pixels, flattened: D = 3 · S · S."""
    from torch import nn

    return nn.Flatten()


def small_cnn(image_size: int) -> nn.Module:
    """Return three convolutions with batch norm; D = 64 up to 16 px, 128 above."""
    from autodl_ray.models.layers import SmallCNN

    return SmallCNN(width=16 if image_size <= 16 else 32)


def small_resnet(image_size: int) -> nn.Module:
    """Return a residual network of seven or ten convolutions; D = 128."""
    from autodl_ray.models.layers import SmallResNet

    return SmallResNet(width=32, halvings=3 if image_size >= 16 else 2)


def resnet18(image_size: int) -> nn.Module:
    """Return torchvision's ResNet-18 without its classifier; D = 512."""
    import torchvision
    from torch import nn

    network = torchvision.models.resnet18(weights=None)
    network.fc = nn.Identity()
    return _as_module(network)


def mobilenet_v3_small(image_size: int) -> nn.Module:
    """Return torchvision's MobileNetV3-Small up to its last hidden layer; D = 1024."""
    import torchvision
    from torch import nn

    from autodl_ray.models.layers import quicken_depthwise

    network = torchvision.models.mobilenet_v3_small(weights=None)
    quicken_depthwise(network)
    network.classifier = nn.Sequential(*list(network.classifier)[:2])
    return _as_module(network)


def efficientnet_lite0(image_size: int) -> nn.Module:
    """Return timm's ``tf_efficientnet_lite0`` without its classifier, its padding fixed for this input; D = 1280."""
    import timm

    from autodl_ray.models.layers import fix_same_padding, quicken_depthwise

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
    fix_same_padding(network, image_size)
    quicken_depthwise(network)
    return _as_module(network)


def _as_module(network: object) -> nn.Module:
    from torch import nn

    assert isinstance(network, nn.Module)
    return network
