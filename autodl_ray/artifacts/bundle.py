"""The record inside a candidate or bundle: what the model is, how it was exported, and how well it did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autodl_ray.artifacts.archive import is_archive, unpacked
from autodl_ray.artifacts.store import Artifact, open_artifact
from autodl_ray.errors import BundleError
from autodl_ray.images import Fit, Preprocess

__all__ = [
    "BUNDLE_JSON",
    "BUNDLE_SCHEMA",
    "MODEL_FILES",
    "WEIGHTS_FILE",
    "BundleInfo",
    "FormatRecord",
    "Int8Attempt",
    "Int8Conditions",
    "Int8Record",
    "PreprocessInfo",
    "Variant",
    "VariantFigures",
    "open_bundle",
]

BUNDLE_JSON = "bundle.json"
BUNDLE_SCHEMA = 1
WEIGHTS_FILE = "model.safetensors"

Variant = Literal["fp32", "int8"]
MODEL_FILES: Mapping[str, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx"}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PreprocessInfo(_Record):
    """The :class:`~autodl_ray.images.Preprocess` that lies inside the exported graph."""

    size: int = Field(ge=1)
    fit: Fit
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, preprocess: Preprocess) -> PreprocessInfo:
        """Record ``preprocess``."""
        return cls(size=preprocess.size, fit=preprocess.fit, mean=preprocess.mean, std=preprocess.std)

    def to_preprocess(self) -> Preprocess:
        """Return the rule itself."""
        return Preprocess(size=self.size, fit=self.fit, mean=self.mean, std=self.std)


class VariantFigures(_Record):
    """What was measured of one model file.

    Attributes:
        accuracy: On the validation split, in [0, 1].
        images_per_s: Speed, preprocessing included.
        bytes: Size of the file.
    """

    accuracy: float
    images_per_s: float
    bytes: int


class Int8Attempt(_Record):
    """One way to INT8 that was tried.

    Attributes:
        rung: Which.
        way: What of it was best, e.g. the calibration method or the corrections.
        lost: Validation accuracy lost, as a share; None where it could not be made.
        speedup: Speed by that of FP32; None where it was not measured.
        note: What a person should know, e.g. why it could not be made.
        seconds: What it took.
    """

    rung: str
    way: str = ""
    lost: float | None = None
    speedup: float | None = None
    note: str = ""
    seconds: float = 0.0


class Int8Conditions(_Record):
    """How the figures came about.

    Attributes:
        method: Calibration method of the chosen INT8 model.
        accuracy_by_method: Validation accuracy of each method that was tried.
        agreement: Share of the validation pictures on which FP32 and INT8 name the same class.
        calibration_count: Pictures of the training split that calibrated it.
        calibration_ids: First 16 hex of the sha256 over their ids.
        val_count: Validation pictures behind the accuracies.
        batch: Pictures a call while measuring speed.
        threads: onnxruntime threads while measuring speed.
        seconds: What the whole INT8 step took.
        rung: How the chosen INT8 model was made: ``static``, ``equalised``, ``mixed``, ``qat``, ``dynamic`` or
            ``weights``.
        tried: Every way that was tried, in order, with what it lost.
        float_layers: Layers that stayed in float because they are the most sensitive.
        lost_low: Lower end of the 95 % interval of the accuracy lost, as a share.
        lost_high: Upper end of it.
        speed_low: Lower end of the 95 % interval of the speed by that of FP32.
        speed_high: Upper end of it.
        stopped: Why nothing further was tried.
    """

    method: str
    accuracy_by_method: dict[str, float]
    agreement: float
    calibration_count: int
    calibration_ids: str
    val_count: int
    batch: int
    threads: int
    seconds: float
    rung: str = "static"
    tried: tuple[Int8Attempt, ...] = ()
    float_layers: tuple[str, ...] = ()
    lost_low: float | None = None
    lost_high: float | None = None
    speed_low: float | None = None
    speed_high: float | None = None
    stopped: str = ""


class Int8Record(_Record):
    """Whether INT8 is delivered and why, with FP32 and INT8 side by side (null where it was not made)."""

    kept: bool
    reason: str
    fp32: VariantFigures | None = None
    int8: VariantFigures | None = None
    conditions: Int8Conditions | None = None


class FormatRecord(_Record):
    """A format beside ONNX and the weights, held against the trained network.

    Attributes:
        folder: Within the bundle.
        how: Which way it was made.
        ran_here: Whether its own runtime answered the pictures; else another one did for it.
        note: What to know of it.
        bytes: Size of the folder.
        pictures: Of the validation split that were compared.
        agreement: Share of equal top-1 classes, the worst of batches of 1, 3 and 32.
        max_difference: Largest difference of a probability.
        mean_difference: Mean difference.
    """

    folder: str
    how: str
    ran_here: bool
    note: str
    bytes: int
    pictures: int
    agreement: float
    max_difference: float
    mean_difference: float


class BundleInfo(_Record):
    """The content of ``bundle.json``.

    Attributes:
        schema_version: Of this record; a newer one is refused.
        name: Name of the run.
        version: First 12 hex of the sha256 over the model files, classes and preprocessing.
        classes: Class names by position in ``probabilities``.
        preprocess: What the graph does with a picture.
        model: Name in the zoo.
        licence: Of the weights it started from.
        dataset_id: Of the data set version it was trained on.
        source: Where the weights came from: ``quick``, ``sweep trial …`` or ``train``.
        exporter: Which route of the ONNX exporter was used.
        variants: Variant → file, of those that are delivered.
        default_variant: The one to serve.
        int8: The decision on INT8.
        val_scores: Scores on the validation split, of the exported FP32 file where all of it was compared.
        test_scores: Scores of the exported model on the sealed test split, once it was opened.
        serve: Settings of the HTTP service, a ``ServeSpec`` as JSON.
        formats: Format → record, of ``export.formats``.
    """

    schema_version: int = BUNDLE_SCHEMA
    name: str
    version: str
    classes: tuple[str, ...] = Field(min_length=1)
    preprocess: PreprocessInfo
    model: str
    licence: str
    dataset_id: str
    source: str
    exporter: str
    variants: dict[Variant, str]
    default_variant: Variant
    int8: Int8Record
    val_scores: dict[str, float]
    test_scores: dict[str, Any] | None = None
    serve: dict[str, Any] | None = None
    formats: dict[str, FormatRecord] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _default_is_there(self) -> BundleInfo:
        if self.default_variant not in self.variants:
            raise ValueError(f"default_variant {self.default_variant!r} is not among the variants")
        return self

    def to_json(self) -> str:
        """Return the record as indented JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def open_bundle(path: str | Path, *, verify: bool = True) -> tuple[Artifact, BundleInfo]:
    """Open a candidate or bundle, a folder or one zip file, and read its record.

    Args:
        path: Folder with ``manifest.json``, or a zip of one, which is unpacked (and checked) into a private folder.
        verify: Hash every file and compare with the manifest.

    Raises:
        BundleError: It is no such folder, of a newer schema, truncated or changed.
    """
    artifact = open_artifact(unpacked(path) if is_archive(path) else path, verify=verify)
    if artifact.manifest.kind not in ("bundle", "candidate"):
        raise BundleError(
            "This artifact is no model.",
            seen=f"{path}: a {artifact.manifest.kind}",
            accepted="the folder of a bundle",
            hint="give the folder that a finished run printed, e.g. runs/NAME/bundle",
        )
    return artifact, _parse(artifact.file(BUNDLE_JSON).read_bytes(), str(path))


def _parse(raw: bytes, where: str) -> BundleInfo:
    try:
        document = json.loads(raw)
        version = document["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{BUNDLE_JSON} is damaged.", seen=f"{where}: {error}", hint="copy or make it again"
        ) from error
    if not isinstance(version, int) or version > BUNDLE_SCHEMA:
        raise BundleError(
            "The bundle is of a newer schema than this version reads.",
            seen=f"{where}: schema_version {version}",
            accepted=f"schema_version up to {BUNDLE_SCHEMA}",
            hint="upgrade autodl_ray",
        )
    try:
        return BundleInfo.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        seen = f"{where}: {'.'.join(str(p) for p in first['loc'])}: {first['msg']}"
        raise BundleError(f"{BUNDLE_JSON} is damaged.", seen=seen, hint="copy or make it again") from error
