"""The sections of an experiment specification, each field with its unit, range and default."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from autodl_ray.errors import near_names

__all__ = [
    "AUGMENTS",
    "Choice",
    "DataSpec",
    "Domain",
    "EvaluateSpec",
    "ExperimentSpec",
    "ExportSpec",
    "Float",
    "Int",
    "ModelSpec",
    "Seconds",
    "ServeSpec",
    "SplitSpec",
    "TrainSpec",
    "TuneSpec",
    "parse_seconds",
]

AUGMENTS = ("auto", "none", "light", "strong", "tiny", "auto_augment", "rand_augment", "trivial_augment", "augmix")
"""Words for ``train.augment``; anything else is the path of a policy file."""

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_seconds(value: object) -> object:
    """Read ``90``, ``"90s"``, ``"10m"``, ``"1h30m"`` as seconds; anything else is left for the validator.

    Example:
        >>> parse_seconds("1h30m")
        5400.0
    """
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a duration; write 90s, 10m or 1h30m")
    if not isinstance(value, str):
        return value
    text = value.strip().lower().replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?(e\d+)?", text):  # YAML reads 1e3 as text
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if parts and "".join(n + u for n, u in parts) == text:
        return sum(float(n) * _UNITS[u] for n, u in parts)
    raise ValueError(f"{value!r} is not a duration; write 90s, 10m or 1h30m")


def _yaml_word(value: object) -> object:
    """Give back the words that YAML took for something else: ``off`` (False) and ``32`` (a number)."""
    if value is False:
        return "off"
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(gt=0)]
Epochs = Annotated[int, Field(ge=1)] | Literal["auto"]


DataFormat = Literal["auto", "imagefolder", "table", "voc", "coco", "yolo", "idx", "webdataset"]


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, numbers finite."""

    # validate_default: a default of 4 and a written 4 are the same number, and so the same digest
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class Float(Section):
    """A number between ``low`` and ``high``, drawn evenly or (``log``) evenly by order of magnitude."""

    type: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Float:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range starts above 0, got {self.low}")
        return self


class Int(Section):
    """A whole number between ``low`` and ``high``, both included."""

    type: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Int:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range starts above 0, got {self.low}")
        return self


class Choice(Section):
    """One of several values."""

    type: Literal["choice"] = "choice"
    values: tuple[str | int | float | bool, ...] = Field(min_length=1)


Domain = Annotated[Float | Int | Choice, Field(discriminator="type")]


class SplitSpec(Section):
    """How the samples are divided; splits that the data set gives itself win over the fractions."""

    by: Literal["stratified", "group", "hash"] = Field(
        "stratified",
        description="stratified by class; group keeps what belongs together in one split; hash keeps a sample in "
        "its split when the set grows",
    )
    group: str | None = Field(
        None,
        description="for by: group or hash: a regular expression whose first (...) group in the path names the group "
        "(null: the group column of the data set, where it has one)",
    )
    val: float = Field(0.15, gt=0, lt=0.5, description="share of the samples for validation (selection)")
    test: float = Field(0.15, gt=0, lt=0.5, description="share of the samples for the sealed test split")
    train_list: str | None = Field(
        None, description="published split: a text file, one file name a line (a label after it is ignored)"
    )
    val_list: str | None = Field(None, description="published split: the list of validation files")
    test_list: str | None = Field(None, description="published split: the list of test files")

    @model_validator(mode="after")
    def _lists_together(self) -> SplitSpec:
        given = [x is not None for x in (self.train_list, self.val_list, self.test_list)]
        if any(given) and not all(given):
            raise ValueError("give train_list, val_list and test_list together")
        return self


class DataSpec(Section):
    """The data set: where it is, how it is divided and weighted."""

    path: str = Field(
        description="folder, table, archive or s3:// address of pictures (see `autodl data detect`), or "
        "version:NAME for a snapshot in the store"
    )
    format: DataFormat = Field("auto", description="of the data set; auto: found out")
    split: SplitSpec = SplitSpec()
    balance: Literal["none", "weights", "sampler", "auto"] = Field(
        "auto",
        description="for unequal classes: weights in the loss, a sampler that draws rare classes more often, or "
        "auto: weights where the largest class has 5 times the pictures of the smallest",
    )
    max_unreadable: float = Field(
        0.2, ge=0, lt=1, description="share of unreadable pictures above which the folder is refused"
    )

    @field_validator("path")
    @classmethod
    def _no_credentials(cls, path: str) -> str:
        scheme, separator, rest = path.partition("://")
        if separator and "@" in rest.split("/", 1)[0]:
            raise ValueError(
                f"an address with keys in it would be written down with the run ({scheme}://…); leave them to the "
                "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
            )
        return path


class ModelSpec(Section):
    """Which network, from which weights, at which input size."""

    name: str = Field(
        "auto", description="auto, or a name of the zoo: see `autodl models` (auto: small_cnn up to 64 px)"
    )
    weights: str = Field(
        "auto",
        description="auto (packaged ImageNet weights where there are any), none, imagenet (torchvision, "
        "needs a network), or the path of a local state_dict",
    )
    image_size: int | Literal["auto"] = Field("auto", description="side of the network input, px (8 to 1024)")
    fit: Literal["stretch", "crop", "pad"] = Field(
        "stretch", description="how a picture becomes square: stretch sees all of it"
    )

    @model_validator(mode="after")
    def _size(self) -> ModelSpec:
        if self.image_size != "auto" and not 8 <= self.image_size <= 1024:
            raise ValueError(f"image_size is 8 to 1024 px, got {self.image_size}")
        return self


class TrainSpec(Section):
    """The defaults of a training run: trial 0 of every sweep."""

    epochs: Epochs = Field("auto", description="passes over the training split (auto: what fits)")
    batch_size: int = Field(32, ge=1, le=4096, description="samples a step, over all workers")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: PositiveFloat | Literal["auto"] = Field(
        "auto", description="peak learning rate of the backbone (auto: the model's own, see `autodl models`)"
    )
    head_lr_factor: PositiveFloat | Literal["auto"] = Field("auto", description="the head learns this much faster")
    weight_decay: float = Field(0.01, ge=0, le=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    dropout: float = Field(0.2, ge=0, lt=1, description="before the head")
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
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
    precision: Annotated[Literal["auto", "32", "bf16"], BeforeValidator(_yaml_word)] = Field(
        "auto", description="auto: bf16 where two timed steps show it is faster"
    )
    num_workers: int = Field(1, ge=1, le=64, description="training workers of one run (more than 1: DDP)")
    cpus_per_worker: PositiveFloat | Literal["auto"] = Field("auto", description="auto: what the machine shares out")
    gpus_per_worker: NonNegativeFloat | Literal["auto"] = Field(
        "auto", description="auto: 1 where there is one, else 0"
    )

    @field_validator("augment")
    @classmethod
    def _word_or_path(cls, value: str) -> str:
        if value in AUGMENTS or any(mark in value for mark in "./\\"):
            return value
        near = near_names(value, AUGMENTS) or f"known: {', '.join(AUGMENTS)}"
        raise ValueError(f"{value!r} is neither a ready policy nor the path of a YAML file; {near}")


def _misfits(key: str, domain: Float | Int | Choice) -> list[str]:
    """Say what keeps the values of ``domain`` from being values of the field ``key`` of train."""
    known = [k for k in TrainSpec.model_fields if k not in ("num_workers", "cpus_per_worker", "gpus_per_worker")]
    if key not in known:
        return [f"{key} is no field of train; {near_names(key, known) or 'known: ' + ', '.join(known)}"]
    values = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
    wrong = []
    for value in values:
        try:
            TrainSpec.model_validate({key: value})
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            wrong.append(f"{key}: {message[:1].lower()}{message[1:]}, got {value!r}")
    return wrong


class TuneSpec(Section):
    """The sweep: which values are tried, how they are proposed, and when a trial is stopped."""

    num_samples: NonNegativeInt | Literal["auto"] = Field(
        "auto", description="trials (auto: what the budget holds; 0: none)"
    )
    search: Literal["tpe", "random"] = "tpe"
    scheduler: Literal["asha", "none"] = "asha"
    epochs: Epochs = Field("auto", description="most epochs of one trial")
    grace_period: int = Field(1, ge=1, description="epochs before a trial may be stopped")
    reduction_factor: int = Field(3, ge=2, le=10, description="of the trials at a rung, 1 in this many goes on")
    metric: Literal["accuracy", "macro_f1", "loss"] = Field("accuracy", description="on the validation split")
    max_concurrent_trials: PositiveInt | Literal["auto"] = "auto"
    param_space: dict[str, Domain] | None = Field(
        None, description="fields of train and their ranges (null: the model's own, see `autodl models`)"
    )

    @field_validator("param_space")
    @classmethod
    def _fits_train(cls, space: dict[str, Domain] | None) -> dict[str, Domain] | None:
        wrong = [reason for key, domain in (space or {}).items() for reason in _misfits(key, domain)]
        if wrong:
            raise ValueError("; ".join(wrong))
        return space

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether the metric is to fall or to rise."""
        return "min" if self.metric == "loss" else "max"


class EvaluateSpec(Section):
    """The report on the sealed test split."""

    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals")
    bootstrap: int = Field(1000, ge=100, le=100_000, description="resamples for the interval of macro-F1")
    worst: int = Field(24, ge=0, le=200, description="worst mistakes shown as pictures")


class ExportSpec(Section):
    """What is delivered, and what INT8 has to show before it is."""

    int8: Annotated[Literal["auto", "off"], BeforeValidator(_yaml_word)] = Field(
        "auto", description="auto: made, measured, and kept where it is better"
    )
    max_drop: float = Field(0.005, ge=0, le=0.2, description="largest accepted loss of validation accuracy")
    min_speedup: float = Field(1.0, gt=0, description="least speed against FP32 on this machine")
    calibration: int = Field(128, ge=8, le=5000, description="pictures of the training split that calibrate INT8")


class ServeSpec(Section):
    """The HTTP service: where it listens and how it scales."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    min_replicas: int = Field(1, ge=0, le=1000)
    max_replicas: int = Field(2, ge=1, le=1000)
    target_ongoing_requests: float = Field(4, gt=0, description="requests under way a replica aims at")
    max_ongoing_requests: int = Field(16, ge=1, description="requests under way a replica accepts")
    max_queued_requests: int = Field(200, ge=-1, description="waiting requests before 429; -1: no limit")
    upscale_delay_s: float = Field(3, ge=0)
    downscale_delay_s: float = Field(60, ge=0)
    num_threads: int = Field(1, ge=1, le=256, description="onnxruntime threads a replica")
    max_body_mb: float = Field(20, gt=0, le=1000, description="largest accepted request")

    @model_validator(mode="after")
    def _ordered(self) -> ServeSpec:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        return self


class ExperimentSpec(Section):
    """Everything `autodl run` is told: one document, validated once, at the edge."""

    schema_version: Literal[1] = 1
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="of the run; default: folder + digest"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    budget_s: Seconds = Field(600.0, description="wall-clock for everything, e.g. 90s, 10m, 1h30m")
    data: DataSpec
    model: ModelSpec = ModelSpec()
    train: TrainSpec = TrainSpec()
    tune: TuneSpec = TuneSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    export: ExportSpec = ExportSpec()
    serve: ServeSpec = ServeSpec()

    def train_with(self, params: dict[str, Any]) -> TrainSpec:
        """Return the training section with ``params`` laid over it, validated again."""
        return TrainSpec.model_validate({**self.train.model_dump(), **params})
