"""Accuracy under limits: every model and file that may be delivered is measured, and the best one within is taken.

Latency hardly differs between trials of one network, so what is weighed against each other are the quick model, the
best trial and the final training, each as FP32 and INT8, and, where none is fast enough, with smaller inputs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from autodl_ray import export
from autodl_ray.artifacts import Artifact, write_atomic
from autodl_ray.artifacts.bundle import Variant, open_bundle
from autodl_ray.errors import BundleError
from autodl_ray.pipeline.candidates import candidate_of, judging_seconds
from autodl_ray.pipeline.judging import enter_scores, judged_as, scores_of_file
from autodl_ray.pipeline.objectives import Measured, choose, table
from autodl_ray.pipeline.state import Contender, Run

__all__ = ["smaller_sizes", "within_limits"]

_SHRINK = (0.75, 0.5)
_LEAST_SIZE = 16
_ROUNDS = 60


@dataclass(frozen=True)
class _File:
    contender: Contender
    candidate: Artifact
    variant: Variant


def within_limits(run: Run, *, int8: bool) -> tuple[Contender, Artifact]:
    """Choose the model and the file that are delivered under ``tune.limits``, and note the table in ``run.facts``.

    Where none keeps the limits, the one that comes nearest is delivered, with a warning (and ``autodl run`` ends with
    exit code 1).

    Args:
        run: With its contenders.
        int8: Whether there is time for INT8.

    Returns:
        The contender, and a candidate that holds the chosen file alone.
    """
    limits = {str(name): float(limit) for name, limit in run.spec.tune.limits.items()}
    files = _files(run, run.contenders, int8=int8)
    rows = _measure(run, files)
    if not choose(rows, limits, run.metric).met and "latency_ms" in limits:
        files += _files(run, _with_smaller_inputs(run), int8=int8)
        rows = _measure(run, files)
    choice = choose(rows, limits, run.metric)
    run.facts["limits"] = {
        "limits": limits,
        "met": choice.met,
        "line": choice.line,
        "rows": table(rows, choice, limits=limits, metric=run.metric),
    }
    run.context.progress.say(f"{'limits' if choice.met else 'WARNING'}: {choice.line}")
    file, row = files[choice.index], rows[choice.index]
    for other, measured in zip(files, rows, strict=True):
        if other.variant == "fp32" and other.contender is not file.contender and other.contender.row in run.rows:
            _entered(run, other, measured)
    winner = _entered(run, file, row)
    source = winner.row.source.replace(" ", "-")
    chosen = export.only_variant(
        file.candidate,
        file.variant,
        reason=f"tune.limits: {choice.line}",
        val_scores=row.scores,
        key=run.context.key(f"candidates/{source}-{file.variant}-alone"),
        context=run.context,
    )
    return winner, chosen


def smaller_sizes(size: int) -> tuple[int, ...]:
    """Return the smaller inputs that are tried for a network of ``size`` px: multiples of 8, larger first."""
    found = {8 * round(size * share / 8) for share in _SHRINK}
    return tuple(sorted((s for s in found if _LEAST_SIZE <= s < size), reverse=True))


def _files(run: Run, contenders: Sequence[Contender], *, int8: bool) -> list[_File]:
    """Export the contenders, best first, while there is time; the best one in any case."""
    files: list[_File] = []
    for contender in sorted(contenders, key=lambda c: -getattr(c.row, run.metric)):
        needed = run.speeds.get("export_s", 10.0) + 3 * len(run.version.val) / run.speeds.get("infer_per_s", 100.0)
        if files and run.context.budget.left_s() - judging_seconds(run) < 2 * needed:
            run.context.progress.say(f"limits: no time to measure {contender.row.source}")
            break
        try:
            candidate = candidate_of(run, contender, int8=int8, quick=bool(files), freely=True)
        except BundleError:  # the network of a smaller input has other layers
            run.context.progress.say(f"limits: {contender.row.source} cannot be made of these weights")
            continue
        variants = open_bundle(candidate.path, verify=False)[1].variants
        files += [_File(contender, candidate, variant) for variant in variants]
    return files


def _with_smaller_inputs(run: Run) -> list[Contender]:
    """Return the best contender with smaller inputs: a convolutional network takes them as it is, at some accuracy."""
    best = run.best()
    preprocess = best.network.preprocess
    return [
        replace(
            best,
            network=replace(best.network, preprocess=replace(preprocess, size=size)),
            row=replace(best.row, source=f"{best.row.source}@{size}px", judged="trained"),
        )
        for size in smaller_sizes(preprocess.size)
    ]


def _measure(run: Run, files: Sequence[_File]) -> list[Measured]:
    """Score and time the files; what an earlier attempt measured of the same files is taken from ``limits.json``."""
    kept = run.context.folder / "limits.json"
    ids = [[file.contender.row.source, file.candidate.id, file.variant] for file in files]
    known: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
    for earlier in known:
        if earlier["files"] == ids:
            return [Measured(**row) for row in earlier["rows"]]
    latencies = _latencies(run, files)
    rows = []
    for file, latency in zip(files, latencies, strict=True):
        scores = scores_of_file(file.candidate, file.variant, run.version.val)
        rows.append(
            Measured(
                source=file.contender.row.source,
                variant=file.variant,
                accuracy=scores["accuracy"],
                macro_f1=scores["macro_f1"],
                latency_ms=latency,
                size_mb=_model_file(file).stat().st_size / 1e6,
            )
        )
    known.append({"files": ids, "rows": [asdict(row) for row in rows]})
    write_atomic(kept, json.dumps(known, indent=1) + "\n")
    return rows


def _latencies(run: Run, files: Sequence[_File]) -> list[float]:
    """Return the median milliseconds of one picture a file, all of them in turn: other work meets them alike."""
    from autodl_ray.export.speed import interleaved_rates
    from autodl_ray.images import decode_image
    from autodl_ray.models.predictor import Predictor

    picture = decode_image(run.version.val.read(0))
    predictors = [Predictor.open(f.candidate.path, variant=f.variant, verify=False) for f in files]
    calls = {str(i): (lambda p=p: p([picture])) for i, p in enumerate(predictors)}
    rates = interleaved_rates(calls, items=1, repeats=_ROUNDS)
    return [1000.0 / rates[str(i)] for i in range(len(files))]


def _model_file(file: _File) -> Any:
    return file.candidate.file(open_bundle(file.candidate.path, verify=False)[1].variants[file.variant])


def _entered(run: Run, file: _File, row: Measured) -> Contender:
    """Give a contender the scores of its file; one with a smaller input is new on the leaderboard."""
    return enter_scores(run, file.contender, row.scores, judged=judged_as(file.variant))
