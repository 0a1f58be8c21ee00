"""Everything one training run needs, fully decided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from autodl_ray.augment.policy import AugmentPolicy
from autodl_ray.augment.presets import PRESETS
from autodl_ray.errors import SpecError
from autodl_ray.images import Preprocess
from autodl_ray.models.zoo import ZooEntry
from autodl_ray.spec.sections import TrainSpec

__all__ = ["FitConfig", "resolve"]

_SCRATCH_LR = 2e-3


@dataclass(frozen=True)
class FitConfig:
    """One training run: plain data, the same in every process.

    Attributes:
        model: Name in the zoo.
        num_classes: C.
        preprocess: How pictures become the input.
        weights: ``packaged``, ``imagenet``, ``none`` or a path.
        epochs: The most passes that are wanted; a deadline may plan fewer.
        batch_size: Samples a step, over all workers.
        optimizer: ``adamw`` or ``sgd``.
        lr: Peak learning rate of the backbone.
        head_lr_factor: The head learns this much faster.
        weight_decay: On weights of convolutions and linear layers, not on norms and biases.
        label_smoothing: Share of the target that is spread over all classes.
        dropout: Before the head.
        schedule: ``one_cycle``, ``cosine`` or ``constant``.
        ema_decay: Of the moving average of the weights; 0: off.
        augment: Name of a ready policy (see :mod:`autodl_ray.augment.presets`), or a policy itself, as JSON.
        augment_magnitude: Strength of a ready policy, in [0, 1]; 0.5: as written.
        mixup: alpha of MixUp; 0: off.
        cutmix: alpha of CutMix; 0: off.
        precision: ``32``, ``bf16``, or ``auto``: what a few timed steps show to be faster.
        seed: Root seed of initial weights, dropout and order.
        train_image_size: Side in training when it differs from ``preprocess.size``; None: the same.
        metric: Which validation score makes an epoch the best.
        warmup: Share of the steps in which a one-cycle schedule rises.
        grad_clip: Largest norm of the gradient; 0: no limit.
        freeze_norms: Keep the statistics of batch norms as they come with the weights, and fold the norms.
        class_weights: C factors of the loss, by class, 1 on average over the training samples; None: all count alike
            (see :func:`autodl_ray.data.sampling.class_weights`).
        balanced: Draw training samples of rare classes more often.
    """

    model: str
    num_classes: int
    preprocess: Preprocess
    weights: str
    epochs: int
    batch_size: int = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 5e-4
    head_lr_factor: float = 10.0
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    dropout: float = 0.2
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    ema_decay: float = 0.0
    augment: str = "light"
    augment_magnitude: float = 0.5
    mixup: float = 0.0
    cutmix: float = 0.0
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    seed: int = 0
    train_image_size: int | None = None
    metric: Literal["accuracy", "macro_f1", "loss"] = "accuracy"
    warmup: float = 0.2
    grad_clip: float = 5.0
    freeze_norms: bool = False
    class_weights: tuple[float, ...] | None = None
    balanced: bool = False

    def __post_init__(self) -> None:
        weights = self.class_weights
        if weights is not None and (len(weights) != self.num_classes or not all(0 <= w < math.inf for w in weights)):
            raise SpecError(
                "These are no weights of the classes.",
                seen=weights,
                accepted=f"{self.num_classes} finite numbers of at least 0",
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FitConfig:
        """Read what :meth:`to_json` gave, also after a detour through a JSON file."""
        pre = document["preprocess"]
        preprocess = Preprocess(size=pre["size"], fit=pre["fit"], mean=tuple(pre["mean"]), std=tuple(pre["std"]))
        weights = document.get("class_weights")
        return cls(
            **{**document, "preprocess": preprocess, "class_weights": None if weights is None else tuple(weights)}
        )


def resolve(
    train: TrainSpec,
    entry: ZooEntry,
    *,
    preprocess: Preprocess,
    num_classes: int,
    weights: str,
    epochs: int,
    seed: int,
    metric: Literal["accuracy", "macro_f1", "loss"] = "accuracy",
    class_weights: tuple[float, ...] | None = None,
    balanced: bool = False,
) -> FitConfig:
    """Decide every ``auto`` of the training section by the zoo's entry.

    Args:
        train: What is wanted.
        entry: The network, whose recipe fills in.
        preprocess: As :func:`autodl_ray.models.zoo.choose` gave it.
        num_classes: C.
        weights: As resolved by ``choose``.
        epochs: The most that are wanted; ``train.epochs`` is the caller's to consider.
        seed: Root seed of the run.
        metric: Which validation score makes an epoch the best.
        class_weights: Of the loss; None: all count alike.
        balanced: Draw training samples of rare classes more often.

    Raises:
        SpecError: The policy file cannot be read, or has mistakes (all listed).
    """
    return FitConfig(
        model=entry.name,
        num_classes=num_classes,
        preprocess=preprocess,
        weights=weights,
        epochs=epochs,
        batch_size=32 if train.batch_size == "auto" else train.batch_size,
        optimizer=train.optimizer,
        lr=_peak_lr(entry, weights) if train.lr == "auto" else train.lr,
        head_lr_factor=entry.head_lr_factor if train.head_lr_factor == "auto" else train.head_lr_factor,
        weight_decay=train.weight_decay,
        label_smoothing=train.label_smoothing,
        dropout=train.dropout,
        schedule=train.schedule,
        ema_decay=train.ema_decay,
        augment=_augment(train.augment, entry),
        augment_magnitude=train.augment_magnitude,
        mixup=train.mixup,
        cutmix=train.cutmix,
        precision=train.precision,
        seed=seed,
        metric=metric,
        freeze_norms=entry.freeze_norms and weights != "none",
        class_weights=class_weights,
        balanced=balanced,
    )


def _peak_lr(entry: ZooEntry, weights: str) -> float:
    """The recipe of a pretrained network is for fine-tuning; from scratch it has further to go."""
    return _SCRATCH_LR if weights == "none" and entry.weights != "none" else entry.lr


def _augment(wanted: str, entry: ZooEntry) -> str:
    """Return the name of a ready policy, or what is in the file: a worker may not see the file, and it may change."""
    if wanted == "auto":
        return entry.augment
    return wanted if wanted in PRESETS else AugmentPolicy.parse(wanted).text
