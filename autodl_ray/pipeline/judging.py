"""Rows of the leaderboard are scored again on the exported file, where there is one and time for it."""

from __future__ import annotations

import json
from dataclasses import replace

from autodl_ray.artifacts import Artifact, ValSamples
from autodl_ray.artifacts.bundle import Variant, open_bundle
from autodl_ray.pipeline.candidates import candidate_of, judging_seconds
from autodl_ray.pipeline.state import Contender, Run

__all__ = ["as_exported", "enter_scores", "judge_delivered", "judge_others", "judged_as", "scores_of_file"]

_MARGIN = 2.0
"""What is not needed for the bundle is only judged where so many times its estimated seconds are left."""


def scores_of_file(candidate: Artifact, variant: Variant, val: ValSamples) -> dict[str, float]:
    """Score an exported file on the whole validation split, read from the original files.

    Returns:
        ``accuracy``, ``macro_f1`` and ``loss``: what ``autodl predict`` on the same files gives.
    """
    import numpy as np

    from autodl_ray.export.pictures import decoded
    from autodl_ray.models.predictor import Predictor
    from autodl_ray.tasks.classification import score

    predict = Predictor.open(candidate.path, variant=variant, verify=False)
    answers = np.empty((len(val), len(predict.classes)), np.float32)
    for positions, pictures in decoded(val, range(len(val))):
        answers[list(positions)] = predict(pictures)
    return score(answers, val.labels)


def as_exported(run: Run, contender: Contender, candidate: Artifact) -> Contender:
    """Give the contender (and its row of the leaderboard) the validation scores of its exported FP32 file."""
    scores = open_bundle(candidate.path, verify=False)[1].val_scores
    pictures = json.loads(candidate.file("parity.json").read_text(encoding="utf-8"))["pictures"]
    judged = "exported" if pictures == len(run.version.val) else contender.row.judged
    return enter_scores(run, contender, scores, judged=judged)


def judge_delivered(run: Run, winner: Contender, candidate: Artifact) -> Contender:
    """Give the winner's row the scores of the very file that is delivered, whatever its variant."""
    variant = open_bundle(candidate.path, verify=False)[1].default_variant
    if winner.row.judged == judged_as(variant) or not _has_time(run, _pass_seconds(run)):
        return winner
    return enter_scores(run, winner, scores_of_file(candidate, variant, run.version.val), judged=judged_as(variant))


def judge_others(run: Run, winner: Contender) -> None:
    """Score the other models whose weights are kept on their exported files, best first, while there is time."""
    others = [c for c in run.contenders if c is not winner and c.row.judged == "trained"]
    for contender in sorted(others, key=lambda c: -getattr(c.row, run.metric)):
        if run.context.stop.is_set() or not _has_time(run, run.speeds.get("export_s", 10.0) + _pass_seconds(run)):
            return
        candidate = candidate_of(run, contender, int8=False, quick=True)
        enter_scores(run, contender, scores_of_file(candidate, "fp32", run.version.val), judged="exported")


def judged_as(variant: Variant) -> str:
    """Return what a row of the leaderboard says of the file that it was scored on."""
    return "exported" if variant == "fp32" else f"exported {variant}"


def _pass_seconds(run: Run) -> float:
    """Estimate one pass of an exported file over the validation split."""
    return len(run.version.val) / run.speeds.get("infer_per_s", 100.0)


def _has_time(run: Run, seconds: float) -> bool:
    left: float = run.context.budget.left_s() - judging_seconds(run)
    return left > _MARGIN * seconds


def enter_scores(run: Run, contender: Contender, scores: dict[str, float], *, judged: str) -> Contender:
    """Give a contender and its row of the leaderboard other scores; one that is new is entered."""
    row = replace(contender.row, accuracy=scores["accuracy"], macro_f1=scores["macro_f1"], judged=judged)
    scored = replace(contender, row=row)
    if contender.row in run.rows:
        run.rows[run.rows.index(contender.row)] = row
        run.contenders[run.contenders.index(contender)] = scored
    else:
        run.rows.append(row)
        run.contenders.append(scored)
    return scored
