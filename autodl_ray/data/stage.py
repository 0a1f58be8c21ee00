"""The data stage: from an address to a checked, hashed and divided version of what lies there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autodl_ray.artifacts import Artifact, DatasetVersion
from autodl_ray.data import formats
from autodl_ray.data.facts.reading import read_facts
from autodl_ray.data.records import Listing, some
from autodl_ray.data.splits.divide import SPLITS
from autodl_ray.data.versions import open_checked
from autodl_ray.data.versions.keeping import keep_version, load_version, make_version
from autodl_ray.data.versions.rows import Table, find_plain_faults, make_table
from autodl_ray.errors import DatasetError
from autodl_ray.runtime import Context
from autodl_ray.spec import DataSpec

__all__ = ["VERSION_PREFIX", "load_version", "run"]

VERSION_PREFIX = "version:"
"""What an address begins with that names a snapshot in the store."""


def run(spec: DataSpec, *, context: Context) -> DatasetVersion:
    """Check every picture, divide them, and keep the version in the store.

    The version's id is the hash of content, labels and splits: the place of the data, the order and times of its
    files, and the machine do not matter. Unchanged data is not read again, and gives the same artifact. A snapshot
    (``version:NAME``) is opened as it is.

    Raises:
        DatasetError: The data cannot be used; nothing was kept but the memory of what was read.
        RunInterrupted: The user asked to stop.
    """
    if spec.path.startswith(VERSION_PREFIX):
        return _snapshot(spec.path.removeprefix(VERSION_PREFIX), context=context)
    listing = formats.read(spec.path, cache=context.store.folder("cache/formats"), format=spec.format)
    facts = read_facts(listing, context=context)
    table = make_table(listing, facts, spec.split, seed=context.seed)
    findings = find_plain_faults(table, listing, facts)
    _refuse_too_many(findings["unreadable"], len(listing.records), most=spec.max_unreadable)
    _check_usable(table)
    artifact = keep_version(table.rows, classes=table.classes, findings=findings, context=context)
    _tell(listing, artifact, findings, context=context)
    return make_version(artifact, listing.root, table.rows)


def _snapshot(name: str, *, context: Context) -> DatasetVersion:
    version = open_checked(name, context=context)
    if not len(version.train) or not len(version.val) or not version.test.size:
        raise DatasetError(
            "The snapshot is not divided into train, validation and test.",
            seen=name,
            hint="make it again from data that can be divided: autodl data snapshot",
        )
    _say_sizes(version.artifact, context=context)
    return version


def _refuse_too_many(unreadable: Sequence[dict[str, str]], total: int, *, most: float) -> None:
    if len(unreadable) > most * total:
        raise DatasetError(
            f"{len(unreadable)} of {total} pictures cannot be read.",
            seen=some((f"{row['path']} ({row['reason'].rstrip('.')})" for row in unreadable), 3),
            accepted=f"at most {most:.0%} (data.max_unreadable)",
            hint="repair or remove the files",
        )


def _check_usable(table: Table) -> None:
    """The division does not look at what can be decoded: what is left of each split must still do."""
    shown: dict[str, set[str]] = {split: set() for split in SPLITS}
    filled = set()
    for row in table.rows:
        if row.split is not None and not row.problem:
            filled.add(row.split)
            shown[row.split].update([row.label] if row.label is not None else [box.label for box in row.boxes or ()])
    for split in SPLITS:
        if split not in filled:
            raise DatasetError("No picture of a split can be read.", seen=split, hint="repair the files")
    unknown = (shown["val"] | shown["test"]) - shown["train"]
    if unknown:
        raise DatasetError(
            "A class has no readable picture in train.", seen=some(sorted(unknown)), hint="repair the files or add some"
        )


def _tell(listing: Listing, artifact: Artifact, findings: dict[str, Any], *, context: Context) -> None:
    _say_sizes(artifact, context=context)
    for line in findings["warnings"]:
        context.progress.say(f"  {line}")
    said = ", ".join(f"{count} {what}" for what, count in listing.passed_over.items() if count)
    if said:
        context.progress.say(f"  passed over: {said}")


def _say_sizes(artifact: Artifact, *, context: Context) -> None:
    meta = artifact.meta
    parts = ", ".join(f"{split} {meta['sizes'][split]}" for split in SPLITS)
    boxes = f", {meta['boxes']} boxes" if meta["boxes"] else ""
    context.progress.say(
        f"data {meta['version'][:12]}: {sum(meta['sizes'].values())} pictures, {len(meta['classes'])} classes{boxes}; "
        f"{parts}"
    )
