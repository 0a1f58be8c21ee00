"""A model of the user's own, named by the dotted path of a function that makes its backbone."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from autodl_ray.errors import SpecError, near_names
from autodl_ray.spec.sections import Choice, Domain, Float

if TYPE_CHECKING:
    from torch import nn

    from autodl_ray.models.zoo import ZooEntry

__all__ = ["custom_entry", "import_dotted"]

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SIDE = 224
_LR = 2e-3
_SPACE: Mapping[str, Domain] = MappingProxyType(
    {
        "lr": Float(low=_LR / 10, high=_LR * 4, log=True),
        "weight_decay": Float(low=1e-4, high=0.2, log=True),
        "label_smoothing": Choice(values=(0.0, 0.1)),
        "dropout": Float(low=0.0, high=0.4),
    }
)
_REACHABLE = (
    "every process of the run imports it: install the package (pip install -e .), or set PYTHONPATH to its folder "
    "before the command, on every machine of the cluster"
)


def import_dotted(path: str, *, where: str) -> Callable[..., Any]:
    """Import ``package.module:function``.

    Args:
        path: The dotted path.
        where: The field that holds it, for the message.

    Raises:
        SpecError: It has another form, cannot be imported, or is not callable.
    """
    if not _DOTTED.fullmatch(path):
        raise SpecError("This is no dotted path.", seen=f"{where}: {path}", accepted="package.module:function")
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        raise SpecError(
            f"The module of {where} cannot be imported.",
            seen=f"{path}: {type(error).__name__}: {error}",
            hint=_REACHABLE,
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        seen = "it has no such name" if found is None else f"it is {type(found).__name__}"
        raise SpecError(
            f"There is no such function for {where}.",
            seen=f"{path}: {seen}",
            accepted="a function at the top of the module",
            hint=near_names(name, dir(module)),
        )
    function: Callable[..., Any] = found
    return function


def custom_entry(name: str) -> ZooEntry:
    """Return an entry like those of the zoo for ``package.module:function``.

    The function takes the side of the input in pixels and returns a ``torch.nn.Module`` that maps (N, 3, S, S)
    float32, normalised to a mean and a deviation of 0.5, to (N, D) features; the head is ours. Its stages (for
    ``freeze`` and ``layer_decay``) are its children in the order in which they were registered.

    Raises:
        SpecError: It cannot be imported, or does not take one argument. Whether it returns such a module is seen, and
            said, when it is called.
    """
    from autodl_ray.models.zoo import ZooEntry

    function = import_dotted(name, where="model.name")
    try:
        inspect.signature(function).bind(_SIDE)
    except TypeError as error:
        raise _unusable(name, f"its parameters do not fit: {error}") from error
    except ValueError:
        pass  # a builtin that tells nothing of its parameters: the call will show

    def build_backbone(image_size: int) -> nn.Module:
        return _checked(function(image_size), name, image_size)

    return ZooEntry(
        name=name,
        doc="your own",
        image_size=_SIDE,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        weights="none",
        licence="your own",
        lr=_LR,
        head_lr_factor=1.0,
        epochs=20,
        freeze_norms=False,
        augment="light",
        param_space=_SPACE,
        build_backbone=build_backbone,
    )


def _checked(backbone: object, name: str, side: int) -> nn.Module:
    import torch
    from torch import nn

    if not isinstance(backbone, nn.Module):
        raise _unusable(name, f"it returned {type(backbone).__name__}")
    training = backbone.training
    try:
        with torch.no_grad():
            made = backbone.eval()(torch.zeros(2, 3, side, side))
    except Exception as error:
        raise _unusable(name, f"it fails on (2, 3, {side}, {side}): {type(error).__name__}: {error}") from error
    finally:
        backbone.train(training)
    if not isinstance(made, torch.Tensor) or made.ndim != 2 or len(made) != 2 or not made.is_floating_point():
        shape = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, torch.Tensor) else type(made).__name__
        raise _unusable(name, f"it maps (2, 3, {side}, {side}) to {shape}")
    return backbone


def _unusable(name: str, why: str) -> SpecError:
    return SpecError(
        "The model is not usable.",
        seen=f"model.name: {name}: {why}",
        accepted="function(image_size: int) that returns a torch.nn.Module, (N, 3, S, S) float32 → (N, D) float32",
        hint="end the network with pooling and flatten; the linear head is added by autodl",
    )
