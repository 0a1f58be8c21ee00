"""The sections of an experiment specification, each field with its unit, range and default."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from autodl_ray.spec.domains import Choice, Domain, Float, Int
from autodl_ray.spec.exporting import ExportSpec
from autodl_ray.spec.search import TuneSpec
from autodl_ray.spec.serving import ServeSpec
from autodl_ray.spec.training import AUGMENTS, TrainSpec
from autodl_ray.spec.values import Bytes, Seconds, Section, parse_seconds

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
    "LogSpec",
    "ModelCandidate",
    "ModelSpec",
    "Seconds",
    "ServeSpec",
    "SplitSpec",
    "TrainSpec",
    "TuneSpec",
    "parse_seconds",
]

DataFormat = Literal["auto", "imagefolder", "table", "voc", "coco", "yolo", "idx", "webdataset"]


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


class ModelCandidate(Section):
    """One of several networks to choose from; what is not given is as in ``model``."""

    name: str | None = None
    weights: str | None = None
    image_size: int | Literal["auto"] | None = None
    fit: Literal["stretch", "crop", "pad"] | None = None


class ModelSpec(Section):
    """Which network, from which weights, at which input size."""

    name: str = Field(
        "auto",
        description="auto, a name of the zoo (see `autodl models`), or package.module:function of your own that "
        "makes a backbone",
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
    candidates: tuple[ModelCandidate, ...] = Field(
        (),
        max_length=16,
        description="networks, weights and inputs to choose from by their frozen features, before anything is trained: "
        "a list of {name, weights, image_size, fit}, what is not given is as above",
    )

    @model_validator(mode="after")
    def _size(self) -> ModelSpec:
        for size in (self.image_size, *(candidate.image_size for candidate in self.candidates)):
            if isinstance(size, int) and not 8 <= size <= 1024:
                raise ValueError(f"image_size is 8 to 1024 px, got {size}")
        return self

    def alternatives(self) -> tuple[ModelSpec, ...]:
        """Return what there is to choose from, each as a section of its own; this one where there are no candidates."""
        plain = self.model_dump(exclude={"candidates"})
        given = [candidate.model_dump(exclude_none=True) for candidate in self.candidates]
        return tuple(ModelSpec.model_validate({**plain, **changes}) for changes in given) or (self,)


class LogSpec(Section):
    """Where the live metrics of a training go, beside the run's own files."""

    tensorboard: bool = Field(True, description="event files in the run's folder (`tensorboard --logdir`)")
    mlflow: str | None = Field(
        None, description="tracking URI of MLflow, e.g. file:mlruns or http://host:5000 (needs the extra mlflow)"
    )
    every_steps: PositiveInt | Literal["auto"] = Field(
        "auto", description="a row of step metrics every so many steps (auto: about one a second)"
    )

    @field_validator("mlflow")
    @classmethod
    def _no_credentials(cls, uri: str | None) -> str | None:
        scheme, separator, rest = (uri or "").partition("://")
        if separator and "@" in rest.split("/", 1)[0]:
            raise ValueError(
                f"an address with a password in it would be written down with the run ({scheme}://…); leave it to the "
                "environment (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)"
            )
        return uri


class EvaluateSpec(Section):
    """The report on the sealed test split."""

    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals")
    bootstrap: int = Field(1000, ge=100, le=100_000, description="resamples for the interval of macro-F1")
    worst: int = Field(24, ge=0, le=200, description="worst mistakes shown as pictures")


class ExperimentSpec(Section):
    """Everything `autodl run` is told: one document, validated once, at the edge."""

    schema_version: Literal[1] = 1
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="of the run; default: folder + digest"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    budget_s: Seconds = Field(600.0, description="wall-clock for everything, e.g. 90s, 10m, 1h30m")
    repeat: int = Field(1, ge=1, le=20, description="the final training is done with so many seeds, for an interval")
    disk_limit: Bytes | None = Field(None, description="most that the run and Ray's temporary files may take, e.g. 2GB")
    data: DataSpec
    model: ModelSpec = ModelSpec()
    train: TrainSpec = TrainSpec()
    tune: TuneSpec = TuneSpec()
    log: LogSpec = LogSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    export: ExportSpec = ExportSpec()
    serve: ServeSpec = ServeSpec()

    def train_with(self, params: dict[str, Any]) -> TrainSpec:
        """Return the training section with ``params`` laid over it, validated again."""
        return TrainSpec.model_validate({**self.train.model_dump(), **params})
