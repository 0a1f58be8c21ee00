"""A backbone and a linear head: what is trained, exported and delivered."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from autodl_ray.artifacts import write_atomic
from autodl_ray.errors import BundleError, InputError
from autodl_ray.models.weights import load_pretrained
from autodl_ray.models.zoo import find_entry
from autodl_ray.seeding import seed_for

__all__ = ["Classifier", "build", "load_weights", "save_weights", "set_head"]


class Classifier(nn.Module):
    """A backbone, dropout and a linear head.

    Args:
        backbone: (N, 3, S, S) float, normalised → (N, D) features.
        num_features: D.
        num_classes: C.
        dropout: Share of the features that is set to zero in training.
    """

    def __init__(self, backbone: nn.Module, *, num_features: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(num_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, S, S) float, normalised, to (N, C) logits."""
        return cast(Tensor, self.head(self.dropout(self.backbone(x))))


def build(
    name: str,
    *,
    num_classes: int,
    image_size: int,
    weights: str,
    dropout: float = 0.0,
    seed: int = 0,
) -> Classifier:
    """Make a model of the zoo.

    Args:
        name: Of the zoo's entry.
        num_classes: C.
        image_size: Side of the input, in pixels.
        weights: ``none``, ``packaged``, ``imagenet`` or a path, as :func:`autodl_ray.models.zoo.choose` resolves them.
        dropout: Before the head.
        seed: Of the initial weights; the caller's random state is left alone.

    Raises:
        InputError: An unknown model, or weights that do not fit or cannot be had.
    """
    entry = find_entry(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "weights", name))
        backbone = entry.build_backbone(image_size)
        model = Classifier(
            backbone, num_features=_num_features(backbone, image_size), num_classes=num_classes, dropout=dropout
        )
    if weights != "none":
        load_pretrained(model, entry, weights)
    return model


def _num_features(backbone: nn.Module, image_size: int) -> int:
    training = backbone.training
    with torch.inference_mode():
        features = backbone.eval()(torch.zeros(1, 3, image_size, image_size))
    backbone.train(training)
    return int(features.shape[1])


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state_dict as safetensors, atomically."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    raw = save(state)
    write_atomic(path, raw, durable=len(raw) >= 2**20)  # syncing a small net takes longer than an epoch of it


def load_weights(model: nn.Module, path: Path) -> None:
    """Load what :func:`save_weights` wrote.

    Raises:
        BundleError: The file is missing, truncated, or of another model.
    """
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise BundleError("The weights cannot be read.", seen=f"{path}: {error}", hint="make them again") from error
    except RuntimeError as error:
        reason = str(error).splitlines()[1:2]
        raise BundleError(
            "The weights are of another model.",
            seen=f"{path}: {' '.join(reason).strip()}",
            hint="check the model's name",
        ) from error


def set_head(model: Classifier, weight: Tensor, bias: Tensor) -> None:
    """Put a fitted head onto the model.

    Raises:
        InputError: It has another number of classes or features.
    """
    if weight.shape != model.head.weight.shape or bias.shape != model.head.bias.shape:
        raise InputError(
            "The head does not fit the model.",
            seen=f"weight {tuple(weight.shape)}, bias {tuple(bias.shape)}",
            accepted=f"weight {tuple(model.head.weight.shape)}, bias {tuple(model.head.bias.shape)}",
        )
    with torch.no_grad():
        model.head.weight.copy_(weight)
        model.head.bias.copy_(bias)
