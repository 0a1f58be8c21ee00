"""The data stage: from a folder to a checked, hashed and divided version of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from autodl_ray.artifacts import Artifact, DatasetVersion
from autodl_ray.data.check import PictureFacts, read_facts
from autodl_ray.data.imagefolder import FolderScan, PictureFile, scan_folder, some
from autodl_ray.data.index import index_row
from autodl_ray.data.records import Listing, Record
from autodl_ray.data.splits import SPLITS, Division, Picture, divide
from autodl_ray.data.version import IndexRow, class_names, keep_version, load_version, make_version
from autodl_ray.errors import DatasetError
from autodl_ray.runtime import Context
from autodl_ray.spec import DataSpec

__all__ = ["load_version", "run"]


def run(spec: DataSpec, *, context: Context) -> DatasetVersion:
    """Check every picture, divide them, and keep the version in the store.

    The version's id is the hash of content, labels and splits: the place of the folder, the order and times of its
    files, and the machine do not matter. An unchanged folder is not read again, and gives the same artifact.

    Raises:
        DatasetError: The folder cannot be used; nothing was kept but the memory of what was read.
        RunInterrupted: The user asked to stop.
    """
    scan = scan_folder(spec.path)
    records = [Record(file.path, file.label, split=file.split, stamp=file.stamp) for file in scan.files]
    facts = read_facts(Listing(scan.root, "imagefolder", records), context=context)
    good, unreadable = _sort_out(scan, facts, most=spec.max_unreadable)
    pictures = [Picture(file.path, file.label, fact.sha256, file.split) for file, fact in good]
    division = divide(pictures, spec.split, seed=context.seed, root=scan.root, skipped=[p for p, _ in unreadable])
    rows = [
        index_row(Record(file.path, file.label), split=division.splits[file.path], facts=fact)
        for file, fact in good
        if file.path in division.splits
    ]
    duplicates = _duplicates(rows)
    findings = _findings(unreadable, duplicates, division)
    artifact = keep_version(rows, classes=class_names(rows), findings=findings, context=context)
    _tell(scan, artifact, findings, context=context)
    return make_version(artifact, scan.root, sorted(rows))


def _sort_out(
    scan: FolderScan, facts: Sequence[PictureFacts], *, most: float
) -> tuple[list[tuple[PictureFile, PictureFacts]], list[tuple[str, str]]]:
    pairs = list(zip(scan.files, facts, strict=True))
    unreadable = [(file.path, fact.problem) for file, fact in pairs if fact.problem]
    unreadable += [(path, "The name is not valid UTF-8.") for path in scan.bad_names]
    total = len(scan.files) + len(scan.bad_names)
    if len(unreadable) > most * total:
        raise DatasetError(
            f"{len(unreadable)} of {total} pictures cannot be read.",
            seen=some((f"{path} ({why.rstrip('.')})" for path, why in unreadable), 3),
            accepted=f"at most {most:.0%} (data.max_unreadable)",
            hint="repair or remove the files",
        )
    return [(file, fact) for file, fact in pairs if not fact.problem], unreadable


def _duplicates(rows: Sequence[IndexRow]) -> list[dict[str, Any]]:
    groups: dict[str, list[IndexRow]] = defaultdict(list)
    for row in rows:
        groups[row.sha256].append(row)
    return [
        {"sha256": sha256, "paths": [r.path for r in group], "labels": sorted({str(r.label) for r in group})}
        for sha256, group in groups.items()
        if len(group) > 1
    ]


def _findings(
    unreadable: Sequence[tuple[str, str]], duplicates: Sequence[dict[str, Any]], division: Division
) -> dict[str, Any]:
    conflicts = [d for d in duplicates if len(d["labels"]) > 1]
    warnings = list(division.notes)
    if unreadable:
        shown = some((path for path, _ in unreadable), 3)
        warnings.append(f"{len(unreadable)} unreadable pictures are skipped: {shown}")
    if conflicts:
        shown = some((" = ".join(d["paths"]) for d in conflicts), 3)
        warnings.append(f"{len(conflicts)} identical pictures have different labels: {shown}")
    if len(duplicates) > len(conflicts):
        warnings.append(f"{len(duplicates) - len(conflicts)} pictures are there more than once, in one split each")
    return {
        "unreadable": [{"path": path, "reason": reason} for path, reason in unreadable],
        "duplicates": list(duplicates),
        "dropped": division.dropped,
        "unlisted": division.unlisted,
        "warnings": warnings,
    }


def _tell(scan: FolderScan, artifact: Artifact, findings: dict[str, Any], *, context: Context) -> None:
    sizes = artifact.meta["sizes"]
    total, classes = sum(sizes.values()), len(artifact.meta["classes"])
    parts = ", ".join(f"{split} {sizes[split]}" for split in SPLITS)
    context.progress.say(f"data {artifact.meta['version'][:12]}: {total} pictures, {classes} classes; {parts}")
    for line in findings["warnings"]:
        context.progress.say(f"  {line}")
    passed_over = {
        "files that are no pictures": scan.not_pictures,
        "pictures outside a class folder": len(scan.outside),
        "links to folders": len(scan.linked_folders),
        "empty class folders": len(scan.empty_classes),
    }
    said = ", ".join(f"{count} {what}" for what, count in passed_over.items() if count)
    if said:
        context.progress.say(f"  passed over: {said}")
