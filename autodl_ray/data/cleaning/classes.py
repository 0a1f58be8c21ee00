"""Faults of classes: too small, unequal, declared and never used; pictures without a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from autodl_ray.data.cleaning.findings import Finding, finding
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.records import some

__all__ = ["AUTO_RATIO", "SMALL_CLASS", "find_class_faults"]

SMALL_CLASS = 10
"""Fewer pictures of a class than this say little about it, in training and still less in a test."""

AUTO_RATIO = 5.0
"""``data.balance: auto`` weights the classes where the largest has this many times the pictures of the smallest."""


def find_class_faults(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong with the classes, over the readable pictures."""
    records = [subject.listing.records[i] for i in subject.good]
    unit = "boxes" if subject.listing.task == "detection" else "pictures"
    counts = Counter(name for record in records for name in Subject.labels_of(record))
    named = {name for record in subject.listing.records for name in Subject.labels_of(record)}
    for name in (name for name in subject.classes if not counts[name]):
        if name in named:
            said = f"No picture of the class {name!r} can be read."
            yield finding("small_class", [], said, label=name, severity="error")
        else:
            said = f"The class {name!r} is declared, but no {'box' if unit == 'boxes' else 'picture'} has it."
            yield finding("unused_class", [], said, label=name)
    for name, count in sorted(counts.items(), key=lambda item: item[1]):
        if count < SMALL_CLASS:
            said = f"The class {name!r} has {count} {unit}; below {SMALL_CLASS} it can hardly be learnt or judged."
            yield finding("small_class", [], said, label=name, severity="error" if count < 3 else "warning")
    yield from _missing_in_split(subject, set(counts))
    yield from _imbalance(counts, unit)
    if unit == "pictures":
        for record in records:
            if record.label is None:
                yield finding("unlabelled", [record.path], "The picture has no label.", drop=(record.path,))


def _missing_in_split(subject: Subject, names: set[str]) -> Iterator[Finding]:
    there: dict[str, set[str]] = {name: set() for name in subject.sizes()}
    for i in subject.good:
        split = subject.split(i)
        if split is not None:
            there[split].update(Subject.labels_of(subject.listing.records[i]))
    for name, found in there.items():
        missing = sorted(names - found)
        if missing:
            said = f"The {name} split has nothing of: {some(missing)}."
            grave = "error" if name == "train" else "warning"
            yield finding("small_class", [], said, severity=grave, splits=(name,))


def _imbalance(counts: Counter[str], unit: str) -> Iterator[Finding]:
    if len(counts) < 2:
        return
    (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
    ratio = many / few
    if ratio < 2:
        return
    weighted = ratio >= AUTO_RATIO
    does = (
        "`data.balance: auto` weights the classes in the loss"
        if weighted
        else f"`data.balance: auto` leaves them as they are (it acts from {AUTO_RATIO:g} : 1)"
    )
    said = f"{most!r} has {many} {unit} and {least!r} has {few}: {ratio:.1f} : 1. {does}."
    yield finding("imbalance", [], said, severity="warning" if weighted else "info")
