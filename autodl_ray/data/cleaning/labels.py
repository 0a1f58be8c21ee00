"""Probable label errors: cleanlab's confident learning on predictions of models that never saw the picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from autodl_ray.data.cleaning.files import PROTECTION
from autodl_ray.data.cleaning.findings import Finding, finding
from autodl_ray.data.cleaning.model import Judgement
from autodl_ray.data.cleaning.subject import Subject

__all__ = ["find_label_errors", "settle_conflicts"]

_SURE = 0.5
_SETTLED = 0.9


def find_label_errors(
    subject: Subject,
    positions: Sequence[int],
    labels: npt.NDArray[np.int64],
    names: Sequence[str],
    judgement: Judgement,
) -> Iterator[Finding]:
    """Yield the pictures whose label is probably wrong, worst first by cleanlab's quality score.

    A warning is what confident learning marks (Northcutt, Jiang and Chuang, 2021); what it passes over although the
    models contradict the label is told as well, as info.

    Args:
        subject: The data set.
        positions: N records.
        labels: (N,) in [0, K).
        names: K class names.
        judgement: Predictions out of fold of these records.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    probabilities = judgement.probabilities
    marked = find_label_issues(labels, probabilities, n_jobs=1, verbose=False)
    quality = get_label_quality_scores(labels, probabilities)
    suggested = probabilities.argmax(axis=1)
    rows = np.arange(len(labels))
    mine, best = probabilities[rows, labels], probabilities[rows, suggested]
    sure = best / np.maximum(best + mine, 1e-12)
    contradicted = (suggested != labels) & (sure > _SURE)
    for row in np.argsort(quality, kind="stable").tolist():
        if not contradicted[row]:
            continue
        i = positions[row]
        path, given, better = subject.listing.records[i].path, names[labels[row]], names[suggested[row]]
        voters = judgement.nearest.shape[1]
        same = int((labels[judgement.nearest[row]] == suggested[row]).sum())
        reason = (
            f"Labelled {given}, looks like {better}: models that never saw it say {better} with {best[row]:.0%} and "
            f"{given} with {mine[row]:.0%}; {same} of the {voters} pictures most like it are {better}."
        )
        yield finding(
            "label",
            [path],
            reason,
            sure=float(sure[row]),
            label=better,
            severity="warning" if marked[row] else "info",
            action="relabel" if marked[row] else "keep",
            splits=subject.splits_of([i]),
        )


def settle_conflicts(
    found: Sequence[Finding],
    subject: Subject,
    positions: Sequence[int],
    names: Sequence[str],
    judgement: Judgement,
) -> list[Finding]:
    """Say which of identical pictures with different labels is right, where the models are sure.

    A group that reaches into the test split is left alone: no model judges what is sealed.

    Returns:
        The findings; those of a settled group drop all of it but one picture with the right label.
    """
    row_of = {i: row for row, i in enumerate(positions)}
    settled: dict[tuple[str, ...], tuple[str, float]] = {}
    for item in found:
        group = [subject.position[path] for path in item.paths] if item.kind == "conflict" else []
        if not group or any(i not in row_of for i in group):
            continue
        belief = judgement.probabilities[[row_of[i] for i in group]].mean(axis=0)
        best = names[int(belief.argmax())]
        if belief.max() >= _SETTLED and any(subject.listing.records[i].label == best for i in group):
            settled[item.paths] = (best, float(belief.max()))
    return [_settle(item, subject, *settled[item.paths]) if item.paths in settled else item for item in found]


def _settle(item: Finding, subject: Subject, best: str, belief: float) -> Finding:
    if item.kind not in ("conflict", "leak"):
        return item
    right = [p for p in item.paths if subject.listing.records[subject.position[p]].label == best]
    keep = max(right, key=lambda path: PROTECTION[subject.splits.get(path)])
    drop = tuple(path for path in item.paths if path != keep)
    said = f" Models that never saw it say {best} with {belief:.0%}: {keep} would stay."
    return replace(item, drop=drop, label=best, reason=item.reason + said)
