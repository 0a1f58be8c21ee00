"""The data stage: from a folder to a checked, hashed and divided version of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

from autodl_ray.artifacts import Artifact, DatasetVersion
from autodl_ray.data.check import PictureFacts, check_files
from autodl_ray.data.imagefolder import FolderScan, PictureFile, scan_folder, some
from autodl_ray.data.splits import SPLITS, Division, Picture, divide
from autodl_ray.data.version import FINDINGS, INDEX, IndexRow, index_text, load_version, make_version
from autodl_ray.errors import BundleError, DatasetError
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
    facts = check_files(scan.root, scan.files, context=context)
    good, unreadable = _sort_out(scan, facts, most=spec.max_unreadable)
    pictures = [Picture(file.path, file.label, fact.sha256, file.split) for file, fact in good]
    division = divide(pictures, spec.split, seed=context.seed, root=scan.root, skipped=[p for p, _ in unreadable])
    rows = [
        IndexRow(file.path, file.label, division.splits[file.path], fact.sha256, fact.width, fact.height, fact.bytes)
        for file, fact in good
        if file.path in division.splits
    ]
    duplicates = _duplicates(rows)
    findings = _findings(unreadable, duplicates, division)
    artifact = _keep(rows, findings, context=context)
    _tell(scan, artifact, findings, context=context)
    return make_version(artifact, scan.root, rows)


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
        {"sha256": sha256, "paths": [r.path for r in group], "labels": sorted({r.label for r in group})}
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


def _keep(rows: Sequence[IndexRow], findings: dict[str, Any], *, context: Context) -> Artifact:
    index = index_text(rows)
    document = json.dumps(findings, indent=1, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(index.encode()).hexdigest()
    key = f"datasets/{hashlib.sha256((index + document).encode()).hexdigest()[:16]}"
    try:
        known = context.store.find(key)
    except BundleError:  # damaged: it is made again
        known = None
    if known is not None:
        return known
    # The digest of the index stands for the spec: two specs that give the same division give the same version.
    with context.store.write(
        key, kind="dataset", spec_digest=digest, inputs={}, seed=context.seed, meta=_meta(rows)
    ) as artifact:
        (artifact.path / INDEX).write_text(index, encoding="utf-8", newline="")
        (artifact.path / FINDINGS).write_text(document, encoding="utf-8")
    found = context.store.find(key)
    assert found is not None
    return found


def _meta(rows: Sequence[IndexRow]) -> dict[str, Any]:
    classes = sorted({row.label for row in rows})
    counts = {split: Counter(row.label for row in rows if row.split == split) for split in SPLITS}
    return {
        "classes": classes,
        "image_size": [round(median(row.width for row in rows)), round(median(row.height for row in rows))],
        "sizes": {split: sum(count.values()) for split, count in counts.items()},
        "counts": {split: {name: count[name] for name in classes} for split, count in counts.items()},
    }


def _tell(scan: FolderScan, artifact: Artifact, findings: dict[str, Any], *, context: Context) -> None:
    sizes = artifact.meta["sizes"]
    total, classes = sum(sizes.values()), len(artifact.meta["classes"])
    parts = ", ".join(f"{split} {sizes[split]}" for split in SPLITS)
    context.progress.say(f"data {artifact.id[:12]}: {total} pictures, {classes} classes; {parts}")
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
