"""The evaluate stage: the exported file is judged once, on the opened test split, from the original files."""

from __future__ import annotations

import datetime
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autodl_ray.artifacts import Artifact, TestSamples
from autodl_ray.artifacts.manifest import package_versions
from autodl_ray.errors import StageError
from autodl_ray.evaluate.judge import Answers, Predict, judge
from autodl_ray.evaluate.report import EvaluationReport, Scores, VariantRow, measure, skipped_rows
from autodl_ray.evaluate.tables import Mistake, find_mistakes, write_errors, write_predictions
from autodl_ray.runtime import Context
from autodl_ray.seeding import rng_for
from autodl_ray.spec import EvaluateSpec, spec_digest
from autodl_ray.tasks.classification import score

__all__ = ["EvaluateInputs", "run"]


@dataclass(frozen=True)
class EvaluateInputs:
    """What is judged, on what, and the facts that the report shows beside the scores.

    Attributes:
        predict: The exported model: decoded pictures → (N, C) float32 probabilities.
        samples: The opened test split.
        candidate_id: Id of the artifact that holds the exported file; "" when it is not in a store.
        model: ``name``, ``version``, ``source``; other entries are shown as they are.
        dataset: ``id``, ``name``, sizes ``train``, ``val``, ``test``, ``skipped`` (pictures left out when the
            version was made), ``counts`` (split → class → pictures; ``train`` decides the baseline); others are
            shown as they are.
        leaderboard: Rows of the search, best first; a row with ``chosen: true`` is marked.
        curves: Rows of the training run by ``epoch`` (``train_loss``, ``loss``, ``accuracy``, ``macro_f1``).
        int8: Decision and measurements of the export: ``{"kept", "reason", "fp32": {…}, "int8": {…},
            "conditions": {…}}``.
        others: Other files of the same model by name, judged on the same pictures, e.g. ``fp32`` beside INT8.
        openings: Who opened the test split, when and what for (rows of :meth:`SealedSplit.open`'s record).
        spec_digest: Of the whole experiment.
        made: How else the model was made: command, seconds and the like.
        judged: Which file ``predict`` is: its name in the report.
        search: What the page's section on the search shows: ``metric``, ``mode``, ``space`` and ``trials`` (rows with
            ``trial``, ``params``, ``value``, ``status``, ``epochs``), ``importance`` (rows with ``name``, ``value``,
            ``low``, ``high``), ``repeat`` and ``limits``; each may be left out.
    """

    predict: Predict
    samples: TestSamples
    model: Mapping[str, Any]
    dataset: Mapping[str, Any]
    candidate_id: str = ""
    leaderboard: Sequence[Mapping[str, Any]] = ()
    curves: Sequence[Mapping[str, Any]] = ()
    int8: Mapping[str, Any] | None = None
    others: Mapping[str, Predict] = field(default_factory=dict)
    openings: Sequence[Mapping[str, Any]] = ()
    spec_digest: str = ""
    made: Mapping[str, Any] = field(default_factory=dict)
    judged: str = "fp32"
    search: Mapping[str, Any] = field(default_factory=dict)


def run(spec: EvaluateSpec, inputs: EvaluateInputs, *, key: str = "report", context: Context) -> Artifact:
    """Judge the model and write ``report.json``, ``report.html``, ``errors.csv`` and ``predictions.csv``.

    A report of the same model, data, settings and facts that is there already is returned as it is.

    Args:
        spec: Confidence, resamples, number of pictures of mistakes.
        inputs: The model, the opened test split and the facts.
        key: Name of the artifact in the run.
        context: Store, seed and progress.

    Returns:
        The artifact of kind ``evaluation``; its meta holds ``accuracy``, ``macro_f1``, their intervals and counts.

    Raises:
        StageError: No test picture is readable or the model failed.
        StoreError: The report could not be written.
    """
    parents = {"candidate": inputs.candidate_id, "dataset": str(inputs.dataset.get("id", ""))}
    facts = _facts_digest(inputs)
    kept = context.store.find(context.key(key))
    if kept is not None and all(parents.values()) and _is_same(kept, spec, parents, facts, context.seed):
        return kept
    begin = time.perf_counter()
    answers = _answers(inputs, context)
    scores = _measure(answers, spec, inputs, context)
    report = _report(scores, answers, spec, inputs, context, seconds=time.perf_counter() - begin)
    with context.store.write(
        context.key(key),
        kind="evaluation",
        spec_digest=spec_digest(spec),
        inputs={name: parent for name, parent in parents.items() if parent},
        seed=context.seed,
        meta={**_meta(report), "facts": facts},
    ) as writer:
        _write_files(writer.path, report, answers, spec, inputs)
    written = context.store.find(context.key(key))
    if written is None:
        raise StageError("The report was written but is not there.", seen=context.key(key))
    return written


def _facts_digest(inputs: EvaluateInputs) -> str:
    """Hash of what is shown beside the scores; ``made`` is left out, as its seconds differ in every attempt."""
    shown = [inputs.model, inputs.dataset, inputs.leaderboard, inputs.curves, inputs.int8, inputs.judged]
    shown += [inputs.search] if inputs.search else []
    text = json.dumps(shown, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_same(kept: Artifact, spec: EvaluateSpec, parents: dict[str, str], facts: str, seed: int) -> bool:
    record = kept.manifest
    same = record.spec_digest == spec_digest(spec) and record.inputs == parents and record.seed == seed
    return same and kept.meta.get("facts") == facts


def _answers(inputs: EvaluateInputs, context: Context) -> Answers:
    models: dict[str, Predict] = {**inputs.others, inputs.judged: inputs.predict}
    with context.progress.stage("evaluate", total=len(inputs.samples)) as bar:
        return judge(inputs.samples, models, progress=bar)


def _measure(answers: Answers, spec: EvaluateSpec, inputs: EvaluateInputs, context: Context) -> Scores:
    counts = inputs.dataset.get("counts", {}).get("train")
    return measure(
        answers.probabilities[inputs.judged],
        inputs.samples.labels[answers.positions],
        inputs.samples.classes,
        confidence=spec.confidence,
        resamples=spec.bootstrap,
        rng=rng_for(context.seed, "evaluate", "bootstrap"),
        train_counts=[int(counts.get(c, 0)) for c in inputs.samples.classes] if counts else None,
    )


def _report(
    scores: Scores,
    answers: Answers,
    spec: EvaluateSpec,
    inputs: EvaluateInputs,
    context: Context,
    *,
    seconds: float,
) -> EvaluationReport:
    made = {"run": context.run, "seed": context.seed, "spec_digest": inputs.spec_digest, **_jsonable(inputs.made)}
    return EvaluationReport(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        confidence=spec.confidence,
        scores=scores,
        images_per_s=_rate(answers, inputs.judged),
        seconds=round(seconds, 3),
        skipped=skipped_rows(answers.unreadable),
        variants=tuple(_variant(n, answers, inputs) for n in answers.probabilities if n != inputs.judged),
        model={**_jsonable(inputs.model), "id": inputs.candidate_id},
        dataset=_jsonable(inputs.dataset),
        int8=None if inputs.int8 is None else _jsonable(inputs.int8),
        leaderboard=tuple(_jsonable(row) for row in inputs.leaderboard),
        curves=tuple(_jsonable(row) for row in inputs.curves),
        search=_jsonable(inputs.search),
        openings=tuple(_jsonable(row) for row in inputs.openings),
        made={**made, "judged_file": inputs.judged, "packages": package_versions()},
    )


def _variant(name: str, answers: Answers, inputs: EvaluateInputs) -> VariantRow:
    mine, other = answers.probabilities[name], answers.probabilities[inputs.judged]
    scores = score(mine, inputs.samples.labels[answers.positions])
    return VariantRow(
        name=name,
        accuracy=scores["accuracy"],
        macro_f1=scores["macro_f1"],
        log_loss=scores["loss"],
        same_answer=float((mine.argmax(axis=1) == other.argmax(axis=1)).mean()),
        images_per_s=_rate(answers, name),
    )


def _rate(answers: Answers, name: str) -> float:
    return round(len(answers.positions) / max(answers.predict_s[name], 1e-9), 2)


def _meta(report: EvaluationReport) -> dict[str, Any]:
    scores = report.scores
    return {
        "accuracy": scores.accuracy.value,
        "accuracy_interval": [scores.accuracy.low, scores.accuracy.high],
        "macro_f1": scores.macro_f1.value,
        "macro_f1_interval": [scores.macro_f1.low, scores.macro_f1.high],
        "log_loss": scores.log_loss,
        "num_images": scores.num_images,
        "num_skipped": len(report.skipped),
    }


def _write_files(
    folder: Path, report: EvaluationReport, answers: Answers, spec: EvaluateSpec, inputs: EvaluateInputs
) -> None:
    from autodl_ray.evaluate.curves import write_curves
    from autodl_ray.evaluate.html import render_html
    from autodl_ray.evaluate.thumbnails import thumbnails

    samples, probabilities = inputs.samples, answers.probabilities[inputs.judged]
    labels, paths = samples.labels[answers.positions], [samples.paths[i] for i in answers.positions]
    mistakes: list[Mistake] = find_mistakes(
        probabilities, labels, positions=answers.positions, paths=paths, classes=samples.classes
    )
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    write_errors(folder / "errors.csv", mistakes)
    write_predictions(folder / "predictions.csv", probabilities, labels, paths=paths, classes=samples.classes)
    write_curves(folder, report.curves)
    pictures = thumbnails(samples, [m.position for m in mistakes[: spec.worst]])
    worst = list(zip(mistakes, pictures, strict=False))
    (folder / "report.html").write_text(
        render_html(report, worst=worst, num_mistakes=len(mistakes)), encoding="utf-8", errors="backslashreplace"
    )


def _jsonable(facts: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(dict(facts), default=_plain))
    return document


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | tuple | set | frozenset):
        return list(value)
    return str(value)
