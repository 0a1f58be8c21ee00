"""From a candidate to the bundle that is delivered: its files, other formats, scores, speed, and a model card."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodl_ray.artifacts import Artifact, TrainSamples, ValSamples
from autodl_ray.artifacts.bundle import BUNDLE_JSON, WEIGHTS_FILE, BundleInfo, FormatRecord, Variant, open_bundle
from autodl_ray.artifacts.reference import REFERENCE_JSON
from autodl_ray.artifacts.smoke import SMOKE_JSON, smoke_document
from autodl_ray.export.card import CARD, model_card
from autodl_ray.export.documents import METRICS_JSON, PARITY_JSON, dump, metrics_document
from autodl_ray.runtime import Context
from autodl_ray.spec import ServeSpec, spec_digest

if TYPE_CHECKING:
    from autodl_ray.export.formats import FormatSource
    from autodl_ray.models.predictor import Predictor

__all__ = ["SPEED_JSON", "Formats", "format_source", "write_bundle"]

SPEED_JSON = "speed.json"
_FORMATS_FOLDER = "formats"
_SPEED_LIMIT_S = 0.3
_SPEED_PX = (480, 360)
_FORMATS_SHARE = 0.5  # of the time left


@dataclass(frozen=True)
class Formats:
    """Formats that are made for a bundle.

    Attributes:
        names: Of :data:`autodl_ray.export.formats.FORMATS`.
        val: Validation split: every format is held against the network on it.
        deadline: Unix time at which everything has to be done; the check of a large split ends early.
    """

    names: tuple[str, ...]
    val: ValSamples
    deadline: float | None = None


def write_bundle(
    candidate: Artifact,
    *,
    report: Artifact | None,
    serve: ServeSpec,
    context: Context,
    key: str = "bundle",
    formats: Formats | None = None,
    dataset: Mapping[str, Any] | None = None,
    train: TrainSamples | None = None,
) -> Artifact:
    """Write the bundle of a candidate; an earlier bundle of the run is replaced in one step.

    Args:
        candidate: What :func:`autodl_ray.export.make_candidate` wrote; verified before it is copied.
        report: The evaluation on the sealed test split, where there is one.
        serve: Settings that ``autodl serve`` starts from.
        context: Surroundings of the run.
        key: Name of the artifact within the run.
        formats: What is made beside ONNX and the weights.
        dataset: Facts of the data set version, for the model card.
        train: Training split: ``reference.json`` says what some of its pictures look like; None: there is none.

    Returns:
        The artifact; a bundle that is there already of the same candidate, report, formats and settings is returned
        as it is.

    Raises:
        BundleError: The candidate is damaged.
        MissingExtraError: A format needs a package that is not installed.
        StageError: A format cannot be made or does not answer like the network.
        StoreError: The store cannot be written.
    """
    wanted = formats.names if formats is not None else ()
    inputs = {"candidate": candidate.id, **({"evaluation": report.id} if report is not None else {})}
    digest = spec_digest(serve)
    found = context.store.find(context.key(key))
    if found is not None and found.manifest.inputs == inputs and found.manifest.spec_digest == digest:
        made = open_bundle(found.path, verify=False)[1].formats
        if sorted(made) == sorted(wanted):
            return found
    candidate, info = open_bundle(candidate.path, verify=True)
    scores = _test_scores(report) if report is not None else None
    with context.store.write(
        context.key(key), kind="bundle", spec_digest=digest, inputs=inputs, seed=context.seed, meta=candidate.meta
    ) as writer:
        candidate.copy_files(writer.path, without={BUNDLE_JSON})
        records = _make_formats(formats, candidate, info, writer.path)
        document = {
            **info.model_dump(),
            "test_scores": scores,
            "serve": serve.model_dump(mode="json"),
            "formats": {name: record.model_dump() for name, record in records.items()},
        }
        info = BundleInfo.model_validate(document)
        (writer.path / BUNDLE_JSON).write_text(info.to_json(), encoding="utf-8")
        _write_documents(writer.path, info, candidate, dataset)
        if train is not None:
            _write_reference(writer.path, train, seed=context.seed)
    written = context.store.find(context.key(key))
    assert written is not None
    return written


def format_source(artifact: Artifact, info: BundleInfo) -> FormatSource:
    """Build the trained network of a candidate or bundle again, with what else formats are made from.

    Raises:
        BundleError: The weights are damaged or of another model.
        InputError: A network of the user's own is no longer to be imported.
    """
    from autodl_ray.export.formats import FormatSource
    from autodl_ray.export.graph import with_preprocess
    from autodl_ray.export.onnx import export_core
    from autodl_ray.models.classifier import build, load_weights

    preprocess = info.preprocess.to_preprocess()
    model = build(info.model, num_classes=len(info.classes), image_size=preprocess.size, weights="none")
    load_weights(model, artifact.file(WEIGHTS_FILE))
    files = {variant: artifact.file(name).read_bytes() for variant, name in info.variants.items()}
    if "fp32" not in files:  # a bundle may hold the INT8 file alone
        core, _ = export_core(model.eval(), preprocess.size)
        files["fp32"] = with_preprocess(core, preprocess, len(info.classes)).SerializeToString(deterministic=True)
    return FormatSource(model.eval(), preprocess, info.classes, files["fp32"], files.get("int8"))


def _make_formats(
    formats: Formats | None, candidate: Artifact, info: BundleInfo, folder: Path
) -> dict[str, FormatRecord]:
    if formats is None or not formats.names:
        return {}
    from autodl_ray.export.formats import make_formats

    now = time.time()
    until = None if formats.deadline is None else now + _FORMATS_SHARE * max(0.0, formats.deadline - now)
    source = format_source(candidate, info)
    records, parity = make_formats(formats.names, source, folder / _FORMATS_FOLDER, samples=formats.val, until=until)
    known = json.loads((folder / PARITY_JSON).read_text(encoding="utf-8"))
    known["formats"] = {name: record.to_json() for name, record in parity.items()}
    (folder / PARITY_JSON).write_text(dump(known), encoding="utf-8")
    return records


def _write_documents(folder: Path, info: BundleInfo, candidate: Artifact, dataset: Mapping[str, Any] | None) -> None:
    from autodl_ray.models.predictor import Predictor, open_session

    files = {v: Predictor(open_session(folder / name), info, v) for v, name in info.variants.items()}
    (folder / SMOKE_JSON).write_text(dump(smoke_document({str(v): p for v, p in files.items()})), encoding="utf-8")
    speed = _speed(folder, info, files)
    (folder / SPEED_JSON).write_text(dump(speed), encoding="utf-8")
    (folder / METRICS_JSON).write_text(dump(metrics_document(info)), encoding="utf-8")
    parity = json.loads((folder / PARITY_JSON).read_text(encoding="utf-8"))
    card = model_card(info, parity=parity, packages=candidate.manifest.packages, speed=speed, dataset=dataset)
    (folder / CARD).write_text(card, encoding="utf-8")


def _write_reference(folder: Path, train: TrainSamples, *, seed: int) -> None:
    """Say what the training looked like, for those who watch what is sent later."""
    from autodl_ray.export.reference import make_reference

    answers = json.loads((folder / PARITY_JSON).read_text(encoding="utf-8")).get("answers")
    reference = make_reference(train, answers, seed=seed) if answers else None
    if reference is not None:
        (folder / REFERENCE_JSON).write_text(dump(reference.to_json()), encoding="utf-8")


def _speed(folder: Path, info: BundleInfo, files: Mapping[Variant, Predictor]) -> dict[str, Any]:
    """Time one picture a call, all files in turn; a third of a second in all."""
    import numpy as np

    from autodl_ray.export.speed import interleaved_rates

    width, height = _SPEED_PX
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    calls: dict[str, Callable[[], object]] = {v: partial(predictor, [picture]) for v, predictor in files.items()}
    rates = interleaved_rates(calls, items=1, limit_s=_SPEED_LIMIT_S)
    return {
        "schema": 1,
        "runtime": "onnxruntime",
        "threads": os.cpu_count() or 1,
        "picture_px": [width, height],
        "variants": {
            v: {"latency_ms": 1000.0 / rates[v], "bytes": (folder / name).stat().st_size}
            for v, name in info.variants.items()
        },
    }


def _test_scores(report: Artifact) -> dict[str, Any]:
    """Scores of the delivered file, with intervals; the confusion matrix and the rest stay in the report."""
    return {k: v for k, v in report.meta.items() if k != "facts"}
