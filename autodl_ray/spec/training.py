"""The training section: one run's recipe, and trial 0 of every sweep."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from autodl_ray.errors import near_names
from autodl_ray.spec.values import Epochs, Section, yaml_word

__all__ = ["AUGMENTS", "LOSSES", "UNSEARCHED", "TrainSpec"]

AUGMENTS = ("auto", "none", "light", "strong", "tiny", "auto_augment", "rand_augment", "trivial_augment", "augmix")
"""Words for ``train.augment``; anything else is the path of a policy file."""

LOSSES = ("cross_entropy", "focal")
"""Words for ``train.loss``; anything else is the dotted path of a function of the user's."""

UNSEARCHED = ("num_workers", "min_workers", "cpus_per_worker", "gpus_per_worker", "compile", "checkpoint_every_s",
              "keep_checkpoints", "micro_batch_size")  # fmt: skip
"""Fields of the training section that say how and not what; they are no part of a search or an identity."""

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class TrainSpec(Section):
    """The defaults of a training run: trial 0 of every sweep."""

    epochs: Epochs = Field("auto", description="passes over the training split (auto: what fits)")
    batch_size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = Field(
        32, description="samples a step, over all workers (auto: the fastest of a few that are timed)"
    )
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = Field(
        "auto",
        description="samples that a worker holds at a time: a smaller one accumulates gradients to the same step "
        "(auto: all, halved where memory runs out)",
    )
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd (Nesterov)")
    lr: PositiveFloat | Literal["auto"] = Field(
        "auto", description="peak learning rate of the backbone (auto: the model's own, see `autodl models`)"
    )
    head_lr_factor: PositiveFloat | Literal["auto"] = Field("auto", description="the head learns this much faster")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor of the learning rate from one stage of the backbone to the one below"
    )
    freeze: Literal["none", "backbone", "gradual"] = Field(
        "none", description="backbone: only the head learns; gradual: stage after stage joins, from the head down"
    )
    unfreeze_share: float = Field(
        0.3, gt=0, le=1, description="for freeze: gradual: share of the steps after which the whole network learns"
    )
    weight_decay: float = Field(0.01, ge=0, le=1)
    loss: str = Field("cross_entropy", description="cross_entropy, focal, or package.module:function of your own")
    focal_gamma: float = Field(2.0, ge=0, le=10, description="for loss: focal: how little easy pictures count")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    dropout: float = Field(0.2, ge=0, lt=1, description="before the head")
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    warmup: float = Field(0.2, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    grad_clip: float = Field(5.0, ge=0, description="largest norm of the gradient, 0 = no limit")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="moving average of the weights, 0 = off")
    augment: str = Field(
        "auto",
        description="auto, none, light, strong, tiny, auto_augment, rand_augment, trivial_augment, augmix, or the "
        "path of a policy in YAML (see jobs/augment.yaml)",
    )
    augment_magnitude: float = Field(
        0.5, ge=0, le=1, description="strength of a ready policy: 0 = none of it, 0.5 = as written, 1 = twice"
    )
    mixup: float = Field(0.0, ge=0, le=10, description="alpha of MixUp (0.2 is common), 0 = off")
    cutmix: float = Field(0.0, ge=0, le=10, description="alpha of CutMix (1.0 is common), 0 = off")
    precision: Annotated[Literal["auto", "32", "bf16", "16"], BeforeValidator(yaml_word)] = Field(
        "auto", description="auto: what two timed steps show to be fastest; 16 needs a GPU"
    )
    compile: bool = Field(False, description="torch.compile; where it fails, the run goes on without")
    replicate: int = Field(
        0, ge=0, lt=1000, description="another draw of initial weights, order and augmentation: the same settings again"
    )
    num_workers: int = Field(1, ge=1, le=64, description="training workers of one run (more than 1: DDP)")
    min_workers: PositiveInt | Literal["auto"] = Field(
        "auto", description="with fewer than num_workers (a node is gone) a run goes on down to this many (auto: 1)"
    )
    cpus_per_worker: PositiveFloat | Literal["auto"] = Field("auto", description="auto: what the machine shares out")
    gpus_per_worker: NonNegativeFloat | Literal["auto"] = Field(
        "auto", description="auto: 1 where there is one, else 0"
    )
    checkpoint_every_s: float = Field(
        60.0, ge=0, description="seconds between checkpoints inside an epoch, beside the one after it; 0 = none"
    )
    keep_checkpoints: int = Field(1, ge=1, le=100, description="weights of this many best epochs are kept")

    @field_validator("augment")
    @classmethod
    def _word_or_path(cls, value: str) -> str:
        if value in AUGMENTS or any(mark in value for mark in "./\\"):
            return value
        near = near_names(value, AUGMENTS) or f"known: {', '.join(AUGMENTS)}"
        raise ValueError(f"{value!r} is neither a ready policy nor the path of a YAML file; {near}")

    @field_validator("loss")
    @classmethod
    def _known_or_dotted(cls, value: str) -> str:
        if value in LOSSES or _DOTTED.fullmatch(value):
            return value
        near = near_names(value, LOSSES) or f"known: {', '.join(LOSSES)}"
        raise ValueError(f"{value!r} is neither a loss nor package.module:function; {near}")
