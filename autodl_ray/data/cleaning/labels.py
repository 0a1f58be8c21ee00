"""Probable label errors: cleanlab's confident learning on predictions of models that never saw the picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from autodl_ray.data.cleaning.findings import Finding, finding
from autodl_ray.data.cleaning.model import Judgement
from autodl_ray.data.cleaning.subject import Subject

__all__ = ["find_label_errors"]

_SURE = 0.5


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
