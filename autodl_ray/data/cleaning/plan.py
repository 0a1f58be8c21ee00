"""Deciding what a cleaned version leaves out and changes; nothing is done here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from autodl_ray.data.cleaning.boxes import clip_box
from autodl_ray.data.cleaning.findings import KINDS, Finding, Report
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.records import Box, Record, some
from autodl_ray.errors import SpecError, near_names

__all__ = ["DEFAULT_DROP", "DROP_NAMES", "Change", "Plan", "cleaned", "make_plan", "parse_drop"]

DROP_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "exact": ("duplicate", "leak", "conflict"),
        "near": ("near_leak", "near_duplicate", "near_conflict"),
        "boxes": ("box_empty", "box_inverted", "box_outside", "box_duplicate"),
    }
)
"""Short names for several kinds."""

DEFAULT_DROP = ("unreadable", "leak", "conflict", "duplicate", "box_empty", "box_inverted", "box_outside")
"""What is acted on without being asked for: facts, never guesses."""

_NOT_DROPPED = ("imbalance", "small_class", "unused_class", "unlisted", "no_boxes")


@dataclass(frozen=True)
class Change:
    """One thing that the new version has otherwise.

    Attributes:
        path: The picture.
        what: ``drop`` the picture, ``relabel`` it, or ``remove_box``, ``clip_box``, ``turn_box`` one of its boxes.
        reason: In plain words.
        kind: Of the finding behind it.
        before: Label or box before.
        after: Label or box after; empty where nothing is left.
        split: Where the picture was.
    """

    path: str
    what: Literal["drop", "relabel", "remove_box", "clip_box", "turn_box"]
    reason: str
    kind: str
    before: str = ""
    after: str = ""
    split: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


@dataclass(frozen=True)
class Plan:
    """What would be done.

    Attributes:
        changes: Sorted by path.
        records: The records of the new version.
        positions: Where each of them is in the listing that was checked.
        notes: What to look at before it is applied.
    """

    changes: tuple[Change, ...]
    records: tuple[Record, ...]
    positions: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Return how many changes there are of each sort."""
        return dict(Counter(change.what for change in self.changes))


def parse_drop(names: str | None) -> tuple[str, ...]:
    """Read ``exact,unreadable,blank`` as kinds of findings; None gives the default.

    Raises:
        SpecError: A name is no kind, or one that cannot be dropped.
    """
    if names is None:
        return DEFAULT_DROP
    kinds: list[str] = []
    known = [*DROP_NAMES, *(kind for kind in KINDS if kind not in _NOT_DROPPED)]
    for name in (part.strip() for part in names.split(",")):
        if name not in known:
            raise SpecError(
                "This cannot be dropped.",
                seen=f"--drop {name}",
                accepted=", ".join(known),
                hint=near_names(name, known),
            )
        kinds.extend(DROP_NAMES.get(name, (name,)))
    return tuple(dict.fromkeys(kinds))


def make_plan(
    report: Report, subject: Subject, *, drop: Sequence[str] = DEFAULT_DROP, relabel: float | None = None
) -> Plan:
    """Decide what to change, from the findings.

    Of identical pictures one stays: in the split that is protected most (test before val before train), the first by
    path. Identical pictures with different labels all go, unless the models are sure which label is right. Boxes
    without area go, swapped edges are turned, boxes that leave the picture are cut. A label changes only when that
    is asked for, and never in the sealed test split, where no model looks.

    Args:
        report: What was found.
        subject: In what.
        drop: Kinds of findings to act on.
        relabel: Change the labels that are probably wrong with at least this certainty; None: none.
    """
    changes: dict[str, list[Change]] = {}
    records = {record.path: record for record in subject.listing.records}
    acted = [item for item in report.findings if item.kind in drop]
    for item in acted:
        if item.kind.startswith("box_"):
            continue
        for path in _leaving(item, explicit=item.kind not in DEFAULT_DROP):
            if path in records:
                change = Change(path, "drop", item.reason, item.kind, split=subject.splits.get(path))
                changes.setdefault(path, [change])
    for path, found in _by_path(item for item in acted if item.kind.startswith("box_")).items():
        if path not in changes:
            records[path], changed = _mended(records[path], found, subject)
            changes[path] = changed
    if relabel is not None:
        for item in report.of("label"):
            if item.sure >= relabel and item.action == "relabel" and item.paths[0] not in changes:
                path = item.paths[0]
                before = str(records[path].label)
                changes[path] = [
                    Change(path, "relabel", item.reason, "label", before, str(item.label), subject.splits.get(path))
                ]
                records[path] = records[path]._replace(label=item.label)
    gone = {path for path, made in changes.items() if any(change.what == "drop" for change in made)}
    positions = tuple(i for i, record in enumerate(subject.listing.records) if record.path not in gone)
    kept = tuple(records[subject.listing.records[i].path] for i in positions)
    flat = tuple(change for path in sorted(changes) for change in changes[path])
    return Plan(flat, kept, positions, _notes(subject, kept, flat))


def _leaving(item: Finding, *, explicit: bool) -> tuple[str, ...]:
    if item.kind == "label" and item.severity != "warning":
        return ()  # most of the others are right
    return item.drop or (item.paths if explicit else ())


def _by_path(found: Iterable[Finding]) -> dict[str, list[Finding]]:
    grouped: dict[str, list[Finding]] = {}
    for item in found:
        grouped.setdefault(item.paths[0], []).append(item)
    return grouped


def _mended(record: Record, found: Sequence[Finding], subject: Subject) -> tuple[Record, list[Change]]:
    boxes: list[Box | None] = list(record.boxes or ())
    fact = subject.facts[subject.position[record.path]]
    changes = []
    for item in sorted(found, key=lambda item: (item.box or 0, item.kind)):
        number = item.box or 0
        box = boxes[number]
        if box is None:
            continue
        removed = item.kind in ("box_empty", "box_duplicate", "box_tiny")
        after = None if removed else clip_box(box, fact.width, fact.height)
        what: Literal["remove_box", "turn_box", "clip_box"] = (
            "remove_box" if after is None else "turn_box" if item.kind == "box_inverted" else "clip_box"
        )
        split = subject.splits.get(record.path)
        changes.append(Change(record.path, what, item.reason, item.kind, _shown(box), _shown(after), split))
        boxes[number] = after
    return record._replace(boxes=tuple(box for box in boxes if box is not None)), changes


def _shown(box: Box | None) -> str:
    return "" if box is None else f"{box.label} ({box.xmin:g}, {box.ymin:g}, {box.xmax:g}, {box.ymax:g})"


def _notes(subject: Subject, kept: Sequence[Record], changes: Sequence[Change]) -> tuple[str, ...]:
    notes = []
    lost = sorted(set(subject.classes) - {name for record in kept for name in Subject.labels_of(record)})
    lost = [name for name in lost if any(name in Subject.labels_of(r) for r in subject.listing.records)]
    if lost:
        notes.append(f"Nothing is left of the classes: {some(lost)}.")
    touched = {change.path for change in changes if change.what == "remove_box"}
    bare = [record.path for record in kept if record.path in touched and not record.boxes]
    if bare:
        notes.append(f"{len(bare)} pictures lose their last box and become background: {some(bare, 3)}.")
    test = [change for change in changes if change.split == "test"]
    if test:
        notes.append(f"{len(test)} changes are in the test split: results before and after are not comparable.")
    return tuple(notes)


def cleaned(subject: Subject, plan: Plan) -> Subject:
    """Return the data set as the plan leaves it, without files that could not even be opened: they have no bytes."""
    pairs = [(r, i) for r, i in zip(plan.records, plan.positions, strict=True) if subject.facts[i].sha256]
    records = [record._replace(split=subject.splits.get(record.path)) for record, _ in pairs]
    # Annotation files still hold what was changed: they are not part of the new version.
    listing = replace(subject.listing, records=records, problems=[], metadata=())
    return Subject(listing, [subject.facts[i] for _, i in pairs], subject.splits)
