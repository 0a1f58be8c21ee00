"""Faults of files: unreadable ones, and identical ones that repeat, contradict each other or leak between splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from autodl_ray.data.cleaning.findings import Finding, finding
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.records import Record

__all__ = ["PROTECTION", "find_identical", "find_unreadable"]

PROTECTION = {None: -1, "train": 0, "val": 1, "test": 2}
"""A picture that lies in two splits stays where it is protected most, as in data/splits."""


def find_unreadable(subject: Subject) -> Iterator[Finding]:
    """Yield the pictures that cannot be read, and what the reader of the format could not use."""
    known = subject.position
    for record, fact in zip(subject.listing.records, subject.facts, strict=True):
        if fact.problem:
            yield finding("unreadable", [record.path], fact.problem, drop=(record.path,))
    for problem in subject.listing.problems:
        drop = (problem.path,) if problem.path in known else ()
        yield finding("unreadable", [problem.path], problem.reason, drop=drop)
    if subject.splits:
        lost = [subject.listing.records[i].path for i in subject.good if subject.split(i) is None]
        if lost:
            yield finding("unlisted", lost, f"{len(lost)} pictures are in no split, so nothing uses them.")


def find_identical(subject: Subject) -> Iterator[Finding]:
    """Yield each group of pictures with the same bytes; one that both contradicts itself and leaks is two findings."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i in subject.good:
        groups[subject.facts[i].sha256].append(i)
    for group in groups.values():
        if len(group) > 1:
            yield from _judge(subject, group)


def _judge(subject: Subject, group: Sequence[int]) -> Iterator[Finding]:
    records = [subject.listing.records[i] for i in group]
    paths = [record.path for record in records]
    splits = subject.splits_of(group)
    home = max(PROTECTION[subject.split(i)] for i in group)
    first = next(p for i, p in zip(group, paths, strict=True) if PROTECTION[subject.split(i)] == home)
    others = tuple(path for path in paths if path != first)
    same = " = ".join(paths[:4]) + (f" = {len(paths) - 4} more" if len(paths) > 4 else "")
    differ = len({_meaning(record) for record in records}) > 1
    if differ:
        said = f"The same bytes are labelled {_labels(records)}: {same}."
        yield finding("conflict", paths, said, drop=tuple(paths), splits=splits)
    if len(splits) > 1:
        where = ", ".join(f"{p} in {subject.split(i)}" for i, p in zip(group, paths, strict=True) if subject.split(i))
        said = f"The same picture lies in {' and '.join(splits)}: {where}. A model would be judged on what it learnt."
        moved = tuple(p for i, p in zip(group, paths, strict=True) if PROTECTION[subject.split(i)] < home)
        yield finding("leak", paths, said, drop=moved, splits=splits)
    elif not differ:
        yield finding("duplicate", paths, f"The same bytes, {len(paths)} times: {same}.", drop=others, splits=splits)


def _meaning(record: Record) -> tuple[object, ...]:
    return (record.label, None if record.boxes is None else tuple(sorted(record.boxes)))


def _labels(records: Sequence[Record]) -> str:
    if any(record.boxes is not None for record in records):
        return "with different boxes"
    return " and ".join(sorted({str(record.label) for record in records}))
