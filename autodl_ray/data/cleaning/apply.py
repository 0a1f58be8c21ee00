"""A cleaned data set becomes a new version in the store; what was checked is kept beside it, untouched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autodl_ray.data.cleaning.plan import Plan, cleaned
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.versions import keep_snapshot
from autodl_ray.data.versions.rows import find_plain_faults, make_table
from autodl_ray.runtime import Context
from autodl_ray.spec import SplitSpec

__all__ = ["Applied", "apply_plan"]


@dataclass(frozen=True)
class Applied:
    """What was kept.

    Attributes:
        version: Id of the cleaned version.
        parent: Id of the version it was made from.
        new: Whether the store did not have it.
        facts: Its counts: pictures, classes, sizes.
    """

    version: str
    parent: str
    new: bool
    facts: dict[str, Any]


def apply_plan(
    plan: Plan,
    subject: Subject,
    *,
    context: Context,
    name: str,
    source: str = "",
    parent: str | None = None,
    split: SplitSpec | None = None,
    tag: str | None = None,
) -> Applied:
    """Keep the data set as the plan leaves it, as a version of its own.

    Nothing is deleted or edited in place: a folder is not written to, and it is kept as it was as the parent of the
    new version, so that `autodl data diff` shows what changed and every picture can be had back.

    Args:
        plan: What to change.
        subject: The data set that was checked.
        context: Store, seed, progress.
        name: Of the data set.
        source: The address as it was given.
        parent: Id of the version that was checked; None: what was checked is snapshotted first.
        split: How to divide what has no splits.
        tag: Names the new version.

    Raises:
        StoreError: The disk is full, the store cannot be written, or the tag is taken.
    """
    if parent is None:
        records = tuple(subject.listing.records)
        before = cleaned(subject, Plan((), records, tuple(range(len(records)))))
        parent = _keep(before, {}, name=name, source=source, context=context, split=split).version
    changes = [change.to_json() for change in plan.changes]
    message = "cleaned: " + (", ".join(f"{what} {count}" for what, count in plan.counts().items()) or "no changes")
    more = {"cleaned_from": parent, "changes": changes}
    return _keep(
        cleaned(subject, plan), more, name=name, source=source, context=context, split=split, parent=parent,
        message=message, tag=tag,
    )  # fmt: skip


def _keep(
    subject: Subject,
    more: dict[str, Any],
    *,
    name: str,
    source: str,
    context: Context,
    split: SplitSpec | None,
    parent: str | None = None,
    message: str = "before cleaning",
    tag: str | None = None,
) -> Applied:
    spec = split or SplitSpec()
    table = make_table(subject.listing, subject.facts, spec, seed=context.seed, must_divide=False)
    findings = {**find_plain_faults(table, subject.listing, subject.facts), **more}
    kept = keep_snapshot(
        table.rows, listing=subject.listing, classes=table.classes, findings=findings, context=context, name=name,
        parent=parent, message=message, source=source, tag=tag,
    )  # fmt: skip
    return Applied(kept.entry.version, kept.entry.parent or "", kept.new, kept.entry.facts)
