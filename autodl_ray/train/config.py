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
from autodl_ray.seeding import seed_for
from autodl_ray.spec.sections import TrainSpec

__all__ = ["BASE_BATCH", "HOW", "FitConfig", "resolve"]

BASE_BATCH = 32
"""Samples a step that the learning rates of the zoo are meant for, and where a measured batch size starts."""

HOW = ("micro_batch_size", "compile", "checkpoint_every_s", "keep_checkpoints")
"""Fields that say how a result is reached and not which: a checkpoint is good for any value of them."""

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
        batch_auto: Measure when the training begins: ``batch_size`` is then only where the measuring starts (see
            :mod:`autodl_ray.train.batch_size`).
        micro_batch_size: Samples that a worker holds at a time; None: all, halved where memory runs out.
        optimizer: ``adamw`` or ``sgd``.
        momentum: Of ``sgd`` (Nesterov).
        lr: Peak learning rate of the backbone.
        head_lr_factor: The head learns this much faster.
        layer_decay: Factor of the learning rate from one stage of the backbone to the one below (see
            :mod:`autodl_ray.train.stages`).
        freeze: ``backbone``: only the head learns; ``gradual``: stage after stage joins, from the head down.
        unfreeze_share: Share of the schedule after which a gradually unfrozen network learns as a whole.
        weight_decay: On weights of convolutions and linear layers, not on norms and biases.
        loss: ``cross_entropy``, ``focal``, or ``package.module:function`` (see :mod:`autodl_ray.train.losses`).
        focal_gamma: Of the focal loss.
        label_smoothing: Share of the target that is spread over all classes.
        dropout: Before the head.
        schedule: ``one_cycle``, ``cosine`` or ``constant``.
        ema_decay: Of the moving average of the weights; 0: off.
        augment: Name of a ready policy (see :mod:`autodl_ray.augment.presets`), or a policy itself, as JSON.
        augment_magnitude: Strength of a ready policy, in [0, 1]; 0.5: as written.
        mixup: alpha of MixUp; 0: off.
        cutmix: alpha of CutMix; 0: off.
        precision: ``32``, ``bf16``, ``16`` (GPUs only), or ``auto``: what two timed steps show to be fastest.
        seed: Root seed of initial weights, dropout and mixing.
        replicate: Which draw of the same settings it is. ``seed`` is that of the draw already; the stream draws its
            order and augmentation by it.
        train_image_size: Side in training when it differs from ``preprocess.size``; None: the same.
        metric: Which validation score makes an epoch the best.
        warmup: Share of the steps in which the learning rate rises.
        grad_clip: Largest norm of the gradient; 0: no limit.
        freeze_norms: Keep the statistics of batch norms as they come with the weights, and fold the norms.
        class_weights: C factors of the loss, by class, 1 on average over the training samples; None: all count alike
            (see :func:`autodl_ray.data.sampling.class_weights`).
        balanced: Draw training samples of rare classes more often.
        compile: Whether torch.compile is tried.
        checkpoint_every_s: Seconds between checkpoints inside an epoch; 0: none there.
        keep_checkpoints: Weights of so many best epochs are kept.
    """

    model: str
    num_classes: int
    preprocess: Preprocess
    weights: str
    epochs: int
    batch_size: int = BASE_BATCH
    batch_auto: bool = False
    micro_batch_size: int | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    lr: float = 5e-4
    head_lr_factor: float = 10.0
    layer_decay: float = 1.0
    freeze: Literal["none", "backbone", "gradual"] = "none"
    unfreeze_share: float = 0.3
    weight_decay: float = 0.01
    loss: str = "cross_entropy"
    focal_gamma: float = 2.0
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
    replicate: int = 0
    train_image_size: int | None = None
    metric: Literal["accuracy", "macro_f1", "loss"] = "accuracy"
    warmup: float = 0.2
    grad_clip: float = 5.0
    freeze_norms: bool = False
    class_weights: tuple[float, ...] | None = None
    balanced: bool = False
    compile: bool = False
    checkpoint_every_s: float = 60.0
    keep_checkpoints: int = 1

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
        SpecError: The policy file cannot be read, or has mistakes (all listed); the user's loss is not usable.
    """
    _check_loss(train, num_classes)
    return FitConfig(
        model=entry.name,
        num_classes=num_classes,
        preprocess=preprocess,
        weights=weights,
        epochs=epochs,
        batch_size=BASE_BATCH if train.batch_size == "auto" else train.batch_size,
        batch_auto=train.batch_size == "auto",
        micro_batch_size=None if train.micro_batch_size == "auto" else train.micro_batch_size,
        optimizer=train.optimizer,
        momentum=train.momentum,
        lr=_peak_lr(entry, weights) if train.lr == "auto" else train.lr,
        head_lr_factor=entry.head_lr_factor if train.head_lr_factor == "auto" else train.head_lr_factor,
        layer_decay=train.layer_decay,
        freeze=train.freeze,
        unfreeze_share=train.unfreeze_share,
        weight_decay=train.weight_decay,
        loss=train.loss,
        focal_gamma=train.focal_gamma,
        label_smoothing=train.label_smoothing,
        dropout=train.dropout,
        schedule=train.schedule,
        ema_decay=train.ema_decay,
        augment=_augment(train.augment, entry),
        augment_magnitude=train.augment_magnitude,
        mixup=train.mixup,
        cutmix=train.cutmix,
        precision=train.precision,
        seed=seed_for(seed, "replicate", train.replicate) if train.replicate else seed,
        replicate=train.replicate,
        metric=metric,
        warmup=train.warmup,
        grad_clip=train.grad_clip,
        freeze_norms=entry.freeze_norms and weights != "none",
        class_weights=class_weights,
        balanced=balanced,
        compile=train.compile,
        checkpoint_every_s=train.checkpoint_every_s,
        keep_checkpoints=train.keep_checkpoints,
    )


def _check_loss(train: TrainSpec, num_classes: int) -> None:
    """Try a loss of the user's here, before anything is started that would need it."""
    if ":" in train.loss:
        from autodl_ray.train.losses import load_loss

        load_loss(train.loss, num_classes=num_classes, soft=train.mixup > 0 or train.cutmix > 0)


def _peak_lr(entry: ZooEntry, weights: str) -> float:
    """The recipe of a pretrained network is for fine-tuning; from scratch it has further to go."""
    return _SCRATCH_LR if weights == "none" and entry.weights != "none" else entry.lr


def _augment(wanted: str, entry: ZooEntry) -> str:
    """Return the name of a ready policy, or what is in the file: a worker may not see the file, and it may change."""
    if wanted == "auto":
        return entry.augment
    return wanted if wanted in PRESETS else AugmentPolicy.parse(wanted).text
