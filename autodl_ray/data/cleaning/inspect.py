"""The whole check: from records and facts to a report, in a few timed steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from autodl_ray.data.cleaning.cheap import cheap_findings, sorted_findings
from autodl_ray.data.cleaning.deep import packaged_backbone
from autodl_ray.data.cleaning.descriptors import gradient_features, pixel_features
from autodl_ray.data.cleaning.findings import Finding, Report, finding
from autodl_ray.data.cleaning.labels import can_tell, find_label_errors, settle_conflicts
from autodl_ray.data.cleaning.looks import find_odd_looks
from autodl_ray.data.cleaning.measures import Measures, measure
from autodl_ray.data.cleaning.model import Judgement, Table, group_numbers, judge, neighbours, reduce_table
from autodl_ray.data.cleaning.near import find_near, near_groups
from autodl_ray.data.cleaning.outliers import find_outliers
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.runtime import Context

__all__ = ["LEAST_PICTURES", "inspect"]

LEAST_PICTURES = 50
"""Below this, models say nothing about labels."""

_SEALED = (
    "The test split is sealed: of its pictures only faults are told that need no model (unreadable, identical, leaks, "
    "blank, dark …). Label errors and outliers are looked for in train and val, by models fitted there."
)
_UNDIVIDED = "The data set is not divided yet: all of its pictures are checked for everything."
_FAST = "Fast: label errors and outliers were not looked for."


@dataclass
class _Work:
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


def inspect(
    subject: Subject, *, source: str, context: Context, fast: bool = False, version: str | None = None
) -> Report:
    """Find every fault of a data set.

    Args:
        subject: Records, facts and splits.
        source: What is checked, as the user named it.
        context: Store (measures are remembered in it by content), progress, seed, the wish to stop.
        fast: Leave out what needs a model: label errors and outliers.
        version: Id of the version that is checked.

    Raises:
        RunInterrupted: A stop was asked for; what was measured is remembered.
    """
    work = _Work()
    with work.step("facts"):
        work.findings += cheap_findings(subject)
    positions = list(subject.good)
    backbone = None if fast or not positions else packaged_backbone(_longer(subject), context=context)
    with work.step("look"):
        measures, failed = measure(subject, positions, backbone=backbone, context=context)
    for i, why in failed.items():
        path = subject.listing.records[i].path
        work.findings.append(finding("unreadable", [path], why, drop=(path,)))
    good = [row for row, i in enumerate(positions) if i not in failed]
    positions, measures = [positions[row] for row in good], measures.take(good)
    _by_looks(subject, positions, measures, work, context)
    sealed = "test" in subject.splits.values()
    work.notes.append(_SEALED if sealed else _UNDIVIDED if not subject.splits else "")
    if fast:
        work.notes.append(_FAST)
    return Report(
        source=source,
        format=subject.listing.format,
        num_pictures=len(subject.listing.records),
        classes=subject.classes,
        sizes=subject.sizes(),
        findings=tuple(sorted_findings(work.findings)),
        notes=tuple(note for note in (*work.notes, *subject.listing.notes) if note),
        seconds=work.seconds,
        model=work.model,
        version=version,
    )


def _longer(subject: Subject) -> int:
    return round(median(max(subject.facts[i].width, subject.facts[i].height) for i in subject.good))


def _by_looks(subject: Subject, positions: Sequence[int], measures: Measures, work: _Work, context: Context) -> None:
    with work.step("looks"):
        work.findings += find_odd_looks(subject, positions, measures.looks)
    with work.step("near duplicates"):
        near = near_groups(subject, positions, hashes=measures.hashes, copies=measures.copies)
        work.findings += find_near(subject, near)
    if measures.deep.shape[1] == 0:
        return
    with work.step("models"), context.progress.stage("judge"):
        rows = [row for row, i in enumerate(positions) if subject.split(i) != "test"]
        _by_models(subject, positions, rows, measures, near, work, context)


def _by_models(
    subject: Subject,
    positions: Sequence[int],
    rows: Sequence[int],
    measures: Measures,
    near: Sequence[tuple[list[int], float]],
    work: _Work,
    context: Context,
) -> None:
    """Judge the pictures in ``rows``, which are those outside the sealed test split."""
    row_of = {positions[row]: number for number, row in enumerate(rows)}
    joined = [[row_of[i] for i in group if i in row_of] for group, _ in near]
    keys = [subject.facts[positions[row]].sha256 for row in rows]
    groups = group_numbers(keys, [members for members in joined if len(members) > 1])
    labels = [subject.listing.records[positions[row]].label for row in rows]
    names = _learnable(labels, groups)
    known = [number for number, label in enumerate(labels) if label in names]
    if len(known) < LEAST_PICTURES or len(names) < 2:
        if subject.listing.task == "detection":
            work.notes.append("Label errors are not looked for where pictures have boxes.")
        else:
            work.notes.append(f"Label errors were not looked for: that takes {LEAST_PICTURES} pictures of 2 classes.")
        _outliers_alone(subject, positions, rows, measures, groups, work, context)
        return
    numbers = np.array([names.index(str(labels[number])) for number in known], dtype=np.int64)
    chosen = np.array([rows[number] for number in known], dtype=np.int64)
    tables = _tables(measures, chosen)
    judgement = judge(tables, numbers, groups[known], num_classes=len(names), seed=context.seed)
    work.model.update(_told(judgement, len(known), names))
    judged = [positions[row] for row in chosen.tolist()]
    if can_tell(judgement, numbers):
        work.findings[:] = settle_conflicts(work.findings, subject, judged, names, judgement)
        work.findings += find_label_errors(subject, judged, numbers, names, judgement)
    else:
        work.notes.append(
            f"The models cannot tell these classes apart ({judgement.accuracy:.0%} of the labels out of fold), so they "
            "say nothing about labels."
        )
    work.findings += find_outliers(subject, judged, judgement.distances, features=judgement.features)


def _learnable(labels: Sequence[str | None], groups: npt.NDArray[np.int64]) -> list[str]:
    """Classes with at least two different pictures."""
    different: dict[str, set[int]] = {}
    for label, group in zip(labels, groups.tolist(), strict=True):
        if label is not None:
            different.setdefault(label, set()).add(group)
    return sorted(name for name, found in different.items() if len(found) > 1)


def _tables(measures: Measures, chosen: npt.NDArray[np.int64]) -> dict[str, Table]:
    return {
        "network": lambda rows: measures.deep[chosen[rows]].astype(np.float32),
        "gradients": lambda rows: gradient_features(measures.copies[chosen[rows]]),
        "pixels": lambda rows: pixel_features(measures.copies[chosen[rows]]),
    }


def _told(judgement: Judgement, count: int, names: Sequence[str]) -> dict[str, Any]:
    return {
        "pictures": count,
        "classes": len(names),
        "features": judgement.features,
        "accuracy_out_of_fold": round(judgement.accuracy, 4),
        "tried": {name: round(value, 4) for name, value in judgement.tried.items()},
    }


def _outliers_alone(
    subject: Subject,
    positions: Sequence[int],
    rows: Sequence[int],
    measures: Measures,
    groups: npt.NDArray[np.int64],
    work: _Work,
    context: Context,
) -> None:
    if len(rows) < LEAST_PICTURES:
        return
    table = _tables(measures, np.asarray(rows, dtype=np.int64))["network"]
    distances, _ = neighbours(reduce_table(table, len(rows), seed=context.seed), groups)
    chosen = [positions[row] for row in rows]
    work.findings += find_outliers(subject, chosen, distances.mean(axis=1), features="network")
