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

__all__ = ["can_tell", "chance_of_error", "find_label_errors", "settle_conflicts"]

_LEAST_GAIN = 0.1
_PRIOR = 0.034
_LISTED = 0.1
_WARNED = 0.5
_RELABELLED = 0.8
_SETTLED = 0.9


def find_label_errors(
    subject: Subject,
    positions: Sequence[int],
    labels: npt.NDArray[np.int64],
    names: Sequence[str],
    judgement: Judgement,
) -> Iterator[Finding]:
    """Yield the pictures whose label is probably wrong, the likeliest first.

    Listed is what the models contradict with a chance of an error of 0.1 and more, and what cleanlab's confident
    learning marks (Northcutt, Jiang and Chuang, 2021) besides; from 0.5 on it is a warning.

    Args:
        subject: The data set.
        positions: N records.
        labels: (N,) in [0, K).
        names: K class names.
        judgement: Predictions out of fold of these records.
    """
    from cleanlab.filter import find_label_issues

    probabilities = judgement.probabilities
    marked = find_label_issues(labels, probabilities, n_jobs=1, verbose=False)
    suggested = probabilities.argmax(axis=1)
    rows = np.arange(len(labels))
    mine, best = probabilities[rows, labels], probabilities[rows, suggested]
    sure = chance_of_error(mine, best)
    listed = (suggested != labels) & (marked | (sure >= _LISTED))
    for row in np.flatnonzero(listed)[np.argsort(-sure[listed], kind="stable")].tolist():
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
            severity="warning" if sure[row] >= _WARNED else "info",
            action="relabel" if sure[row] >= _WARNED and best[row] >= _RELABELLED else "keep",
            splits=subject.splits_of([i]),
        )


def can_tell(judgement: Judgement, labels: npt.NDArray[np.int64]) -> bool:
    """Whether the models know enough to doubt a label.

    The lower end of their accuracy (95 %, normal approximation) has to lie above the share of the largest class by a
    tenth of what that leaves to gain.
    """
    largest = float(np.bincount(labels).max()) / len(labels)
    accuracy = judgement.accuracy
    lower = accuracy - 1.96 * float(np.sqrt(max(accuracy * (1 - accuracy), 0) / len(labels)))
    return lower > largest + _LEAST_GAIN * (1 - largest)


def chance_of_error(given: npt.NDArray[np.float64], suggested: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the chance that a label is wrong, from the probabilities of the given and of the suggested class.

    A model of mediocre accuracy contradicts many right labels, so its odds are weighed with how rare wrong labels are:
    3.4 % on average in ten well-known test sets (Northcutt, Athalye and Mueller, Pervasive Label Errors, 2021). Of one
    label in thirty that was flipped in digits and TrashNet, five times each, these were the share of what was listed:
    with a chance below 0.2 0.07, from 0.2 0.19, from 0.4 0.46, from 0.6 0.76, from 0.8 0.94
    (`python -m tests.benchmarks.check_data labels`).
    """
    odds = suggested / np.maximum(given, 1e-9) * _PRIOR / (1 - _PRIOR)
    chance: npt.NDArray[np.float64] = odds / (1 + odds)
    return chance


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
