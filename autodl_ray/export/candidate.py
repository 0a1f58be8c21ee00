"""The export stage: a trained network becomes a candidate that is checked against it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from autodl_ray.artifacts import Artifact, TrainSamples, ValSamples
from autodl_ray.artifacts.bundle import (
    BUNDLE_JSON,
    MODEL_FILES,
    WEIGHTS_FILE,
    BundleInfo,
    Int8Record,
    PreprocessInfo,
    Variant,
)
from autodl_ray.errors import StageError
from autodl_ray.export.documents import (
    LABELS_JSON,
    PARITY_JSON,
    PREPROCESS_JSON,
    dump,
    labels_document,
    preprocess_document,
)
from autodl_ray.images import Preprocess
from autodl_ray.runtime import Context
from autodl_ray.spec import ExportSpec, spec_digest

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from autodl_ray.export.onnx import Exporter
    from autodl_ray.export.parity import ParityRecord

__all__ = ["CandidateInputs", "content_version", "make_candidate", "weights_digest"]

_PARITY_SHARE = 0.25  # of the time left


@dataclass(frozen=True)
class CandidateInputs:
    """What is exported.

    Attributes:
        model: A ``Classifier``: (N, 3, S, S) float32 → logits (N, C).
        model_name: In the zoo.
        preprocess: What the network's input is of a picture.
        classes: C class names.
        train: Training split; INT8 is calibrated on some of it.
        val: Validation split; parity and INT8 are judged on it.
        dataset_id: Of the data set version.
        source: Where the weights came from: ``quick``, ``sweep trial …``, ``train``.
        with_int8: Whether INT8 is tried (where the spec allows it).
        val_scores: Scores of the network on the validation split; recorded where parity did not see all of it.
        licence: Of the weights it started from.
        parity_samples: Pictures for the parity check, the first of the split; None: all.
        inputs: Ids of the artifacts and files it came from, recorded in the manifest.
        deadline: Unix time at which everything has to be done; INT8 is left out where it would not fit, and the
            parity check of a large split ends early (torch is about five times slower than the exported file).
    """

    model: nn.Module
    model_name: str
    preprocess: Preprocess
    classes: tuple[str, ...]
    train: TrainSamples
    val: ValSamples
    dataset_id: str
    source: str
    with_int8: bool = True
    val_scores: Mapping[str, float] = field(default_factory=dict)
    licence: str = ""
    parity_samples: int | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    deadline: float | None = None


@dataclass(frozen=True)
class _Exported:
    exporter: Exporter
    core: onnx.ModelProto
    fp32: bytes
    parity: ParityRecord


def weights_digest(path: Path) -> str:
    """Return the sha256 (first 32 hex) of a file of weights."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]


def make_candidate(spec: ExportSpec, inputs: CandidateInputs, *, key: str, context: Context) -> Artifact:
    """Export the network to ONNX, check that it answers the same, try INT8, and write the candidate.

    Args:
        spec: What INT8 has to show.
        inputs: What is exported.
        key: Full key in the store.
        context: Surroundings of the run.

    Returns:
        The artifact of kind ``candidate``.

    Raises:
        StageError: The network cannot be exported, or the file does not answer like it.
        StoreError: The store cannot be written.
    """
    with context.progress.stage("export", 3) as bar:
        exported = _export(inputs)
        bar.update(1, 3, note=f"onnx by {exported.exporter}")
        record, int8 = _int8(spec, inputs, exported, seed=context.seed, tell=lambda note: bar.update(1, note=note))
        bar.update(2, 3, note=record.reason)
        with context.store.write(
            key,
            kind="candidate",
            spec_digest=spec_digest(spec),
            inputs=dict(inputs.inputs) or {"dataset": inputs.dataset_id},
            seed=context.seed,
            meta={"model": inputs.model_name, "source": inputs.source},
        ) as writer:
            _write(writer.path, inputs, exported, record=record, int8=int8, name=context.run)
        bar.update(3, 3, note=f"int8 {'kept' if record.kept else 'left out'}: {record.reason}")
    written = context.store.find(key)
    assert written is not None
    return written


def _export(inputs: CandidateInputs) -> _Exported:
    """Export by the first route whose file passes the parity check on pictures; the other one gets its turn."""
    from autodl_ray.export.onnx import ROUTES, export_core, frozen_copy

    model = frozen_copy(inputs.model)
    core, exporter = export_core(model, inputs.preprocess.size)
    try:
        return _checked(inputs, model, core, exporter)
    except StageError:
        others = [route for route in ROUTES if route != exporter]
        if exporter != ROUTES[0]:  # the earlier ones have failed already
            raise
        try:
            core, exporter = export_core(model, inputs.preprocess.size, routes=others)
            return _checked(inputs, model, core, exporter)
        except StageError:
            pass
        raise


def _checked(inputs: CandidateInputs, model: nn.Module, core: onnx.ModelProto, exporter: Exporter) -> _Exported:
    from autodl_ray.export.graph import with_preprocess
    from autodl_ray.export.parity import check_parity

    fp32 = with_preprocess(core, inputs.preprocess, len(inputs.classes)).SerializeToString(deterministic=True)
    parity = check_parity(
        model,
        fp32,
        preprocess=inputs.preprocess,
        samples=inputs.val,
        count=inputs.parity_samples,
        until=None if inputs.deadline is None else time.time() + _PARITY_SHARE * (inputs.deadline - time.time()),
    )
    return _Exported(exporter, core, fp32, parity)


def _int8(
    spec: ExportSpec, inputs: CandidateInputs, exported: _Exported, *, seed: int, tell: Callable[[str], None]
) -> tuple[Int8Record, bytes | None]:
    from autodl_ray.export.int8 import try_int8

    if spec.int8 == "off":
        return Int8Record(kept=False, reason="export.int8 is off"), None
    if not inputs.with_int8:
        return Int8Record(kept=False, reason="not tried for this candidate"), None
    return try_int8(
        spec,
        exported.core,
        exported.fp32,
        preprocess=inputs.preprocess,
        train=inputs.train,
        val=inputs.val,
        deadline=inputs.deadline,
        seed=seed,
        tell=tell,
    )


def _write(
    folder: Path, inputs: CandidateInputs, exported: _Exported, *, record: Int8Record, int8: bytes | None, name: str
) -> None:
    from autodl_ray.models.classifier import save_weights

    files: dict[Variant, bytes] = {"fp32": exported.fp32}
    if record.kept and int8 is not None:
        files["int8"] = int8
    for variant, data in files.items():
        (folder / MODEL_FILES[variant]).write_bytes(data)
    save_weights(inputs.model, folder / WEIGHTS_FILE)
    (folder / PARITY_JSON).write_text(dump(exported.parity.to_json()), encoding="utf-8")
    (folder / PREPROCESS_JSON).write_text(dump(preprocess_document(inputs.preprocess)), encoding="utf-8")
    (folder / LABELS_JSON).write_text(dump(labels_document(inputs.classes)), encoding="utf-8")
    preprocess = PreprocessInfo.of(inputs.preprocess)
    info = BundleInfo(
        name=name,
        version=content_version(files, inputs.classes, preprocess),
        classes=inputs.classes,
        preprocess=preprocess,
        model=inputs.model_name,
        licence=inputs.licence,
        dataset_id=inputs.dataset_id,
        source=inputs.source,
        exporter=exported.exporter,
        variants={variant: MODEL_FILES[variant] for variant in files},
        default_variant="int8" if "int8" in files else "fp32",
        int8=record,
        val_scores=_val_scores(inputs, exported.parity),
    )
    (folder / BUNDLE_JSON).write_text(info.to_json(), encoding="utf-8")


def _val_scores(inputs: CandidateInputs, parity: ParityRecord) -> dict[str, float]:
    """Scores of the exported file where parity saw the whole split; else what the training said."""
    return dict(parity.scores if parity.pictures == len(inputs.val) else inputs.val_scores)


def content_version(files: Mapping[Variant, bytes], classes: tuple[str, ...], preprocess: PreprocessInfo) -> str:
    """Return the first 12 hex of the sha256 over all that decides an answer."""
    parts = {
        "files": {variant: hashlib.sha256(data).hexdigest() for variant, data in files.items()},
        "classes": classes,
        "preprocess": preprocess.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
