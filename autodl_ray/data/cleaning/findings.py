"""A finding: what is wrong with which pictures, why, how sure that is, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal

__all__ = ["KINDS", "SEVERITIES", "Action", "Finding", "FindingKind", "Report", "Severity", "finding"]

Severity = Literal["error", "warning", "info"]
Action = Literal["drop", "relabel", "fix_box", "keep"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""From the gravest to the lightest."""


@dataclass(frozen=True)
class FindingKind:
    """A kind of fault.

    Attributes:
        title: For the head of a table.
        severity: How grave it is; ``error``: a model or its evaluation would be wrong because of it.
        action: What is suggested.
        sure: What a finding's number between 0 and 1 means.
    """

    title: str
    severity: Severity
    action: Action
    sure: str


_FACT = "1: a fact"
_GUESS = "how far the measure is past its limit: 0.5 at the limit, 1 at the far end"
_PROBABLE = "the chance that the label is wrong, by models that never saw the picture, where 3 labels in 100 are wrong"

KINDS: Mapping[str, FindingKind] = MappingProxyType(
    {
        "unreadable": FindingKind("unreadable pictures", "error", "drop", _FACT),
        "leak": FindingKind("the same picture in two splits", "error", "drop", _FACT),
        "conflict": FindingKind("identical pictures with different labels", "error", "drop", _FACT),
        "box_inverted": FindingKind("boxes whose edges are swapped", "error", "fix_box", _FACT),
        "box_empty": FindingKind("boxes without area", "error", "fix_box", _FACT),
        "box_outside": FindingKind("boxes that leave the picture", "warning", "fix_box", _FACT),
        "duplicate": FindingKind("identical pictures", "warning", "drop", _FACT),
        "near_leak": FindingKind("nearly the same picture in two splits", "warning", "drop", "likeness of the pixels"),
        "near_conflict": FindingKind(
            "nearly the same picture with different labels", "warning", "relabel", "likeness of the pixels"
        ),
        "near_duplicate": FindingKind("nearly the same picture", "info", "keep", "likeness of the pixels"),
        "label": FindingKind("probable label errors", "warning", "relabel", _PROBABLE),
        "blank": FindingKind("blank pictures", "warning", "drop", _GUESS),
        "dark": FindingKind("dark pictures", "info", "keep", _GUESS),
        "bright": FindingKind("bright pictures", "info", "keep", _GUESS),
        "blurred": FindingKind("blurred pictures", "info", "keep", _GUESS),
        "odd_size": FindingKind("pictures of an unusual size", "info", "keep", _GUESS),
        "odd_aspect": FindingKind("pictures that are very long or very wide", "info", "keep", _GUESS),
        "outlier": FindingKind("pictures unlike all others", "info", "keep", _GUESS),
        "small_class": FindingKind("classes too small", "warning", "keep", _FACT),
        "imbalance": FindingKind("unequal classes", "info", "keep", _FACT),
        "unused_class": FindingKind("declared classes that nothing has", "warning", "keep", _FACT),
        "unlabelled": FindingKind("pictures without a label", "warning", "drop", _FACT),
        "unlisted": FindingKind("pictures in no split", "info", "keep", _FACT),
        "box_duplicate": FindingKind("boxes that are there twice", "warning", "fix_box", _FACT),
        "box_tiny": FindingKind("tiny boxes", "info", "keep", _FACT),
        "no_boxes": FindingKind("pictures without boxes", "info", "keep", _FACT),
    }
)
"""Every kind by name, in the order of a report."""


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        kind: A key of :data:`KINDS`.
        severity: Of this finding.
        paths: The pictures it is about; empty where it is about a class.
        reason: In plain words.
        sure: In [0, 1]; what it means is said by the kind.
        action: What is suggested.
        drop: Those of ``paths`` that go when the suggestion is followed.
        label: Suggested class, for ``relabel``.
        box: Position of the box within its picture, for faults of boxes.
        splits: Splits of the pictures that have one.
    """

    kind: str
    severity: Severity
    paths: tuple[str, ...]
    reason: str
    sure: float = 1.0
    action: Action = "keep"
    drop: tuple[str, ...] = ()
    label: str | None = None
    box: int | None = None
    splits: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what is known, without what does not apply."""
        document = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return {**document, "paths": list(self.paths), "sure": round(self.sure, 4)}


def finding(kind: str, paths: Sequence[str], reason: str, **more: Any) -> Finding:
    """Make a finding with the severity and the action of its kind, unless ``more`` says otherwise."""
    usual = KINDS[kind]
    return Finding(
        **{"kind": kind, "severity": usual.severity, "action": usual.action, **more},
        paths=tuple(paths),
        reason=reason,
    )


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        source: What was checked, as the user named it.
        format: Of the data set.
        num_pictures: How many pictures there are, unreadable ones included.
        classes: Class names.
        sizes: Pictures by split; empty while nothing is divided.
        findings: By kind in the order of :data:`KINDS`, the surest first.
        notes: Lines on how it was checked.
        seconds: Wall-clock by step.
        model: How label errors were looked for: the features, and the accuracy out of fold; empty when they were not.
        version: Id of the version that was checked, if it was one.
    """

    source: str
    format: str
    num_pictures: int
    classes: tuple[str, ...]
    sizes: Mapping[str, int]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    version: str | None = None

    def counts(self) -> dict[str, int]:
        """Return how many findings there are of each kind that occurs, in the order of a report."""
        counted = Counter(item.kind for item in self.findings)
        return {kind: counted[kind] for kind in KINDS if counted[kind]}

    def of(self, kind: str) -> list[Finding]:
        """Return the findings of one kind, the surest first."""
        return [item for item in self.findings if item.kind == kind]

    def by_severity(self) -> dict[str, int]:
        """Return how many findings there are of each severity."""
        counted = Counter(item.severity for item in self.findings)
        return {severity: counted[severity] for severity in SEVERITIES}

    def to_json(self) -> dict[str, Any]:
        """Return the whole report as JSON."""
        return {
            "source": self.source,
            "version": self.version,
            "format": self.format,
            "pictures": self.num_pictures,
            "classes": list(self.classes),
            "sizes": dict(self.sizes),
            "severities": self.by_severity(),
            "counts": self.counts(),
            "kinds": {kind: {"title": KINDS[kind].title, "sure": KINDS[kind].sure} for kind in self.counts()},
            "model": dict(self.model),
            "seconds": {step: round(seconds, 2) for step, seconds in self.seconds.items()},
            "notes": list(self.notes),
            "findings": [item.to_json() for item in self.findings],
        }
