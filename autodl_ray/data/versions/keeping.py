"""A version as an artifact: keeping its rows, and opening it as three splits of samples."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np

from autodl_ray.artifacts import (
    Artifact,
    BoxTable,
    DatasetVersion,
    Ranges,
    Samples,
    SealedSplit,
    TestSamples,
    TrainSamples,
    ValSamples,
)
from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.records import Range
from autodl_ray.data.versions.index import INDEX, IndexRow, class_names, read_index, version_hash, write_index
from autodl_ray.errors import BundleError, DatasetError
from autodl_ray.runtime import Context

__all__ = [
    "FINDINGS",
    "INDEX",
    "IndexRow",
    "class_names",
    "keep_version",
    "load_version",
    "make_version",
    "read_index",
    "version_hash",
]

FINDINGS = "findings.json"
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
S = TypeVar("S", bound=Samples)


def keep_version(
    rows: Sequence[IndexRow], *, classes: Sequence[str], findings: Mapping[str, Any], context: Context
) -> Artifact:
    """Keep a version in the store as ``datasets/<key>``; one that is there already is not written again.

    Args:
        rows: All its pictures, in any order.
        classes: Class names by label.
        findings: What was noticed, as JSON (``warnings``, ``unreadable``, ``duplicates`` …).
        context: Store and seed.

    Returns:
        The artifact; ``meta["version"]`` is the first 32 digits of :func:`version_hash`.

    Raises:
        DatasetError: Two pictures have one path.
        StoreError: The disk is full, or the store cannot be written.
    """
    _check_paths(rows)
    version = version_hash(rows, classes)
    document = json.dumps(findings, indent=1, ensure_ascii=False) + "\n"
    key = f"datasets/{_key(version, rows, document)}"
    try:
        known = context.store.find(key)
    except BundleError:  # damaged: it is made again
        known = None
    if known is not None:
        return known
    meta = {"version": version[:32], **_meta(rows, classes)}
    # The version stands for the spec: two specs that give the same division give the same version.
    with context.store.write(
        key, kind="dataset", spec_digest=version, inputs={}, seed=context.seed, meta=meta
    ) as artifact:
        write_index(artifact.path / INDEX, rows)
        (artifact.path / FINDINGS).write_text(document, encoding="utf-8")
    found = context.store.find(key)
    assert found is not None
    return found


def _check_paths(rows: Sequence[IndexRow]) -> None:
    if len({row.path for row in rows}) == len(rows):
        return
    twice = [path for path, count in Counter(row.path for row in rows).items() if count > 1]
    raise DatasetError(
        "Two pictures have one path (in Unicode form NFC).",
        seen=", ".join(sorted(twice)[:5]),
        accepted="a path of its own for each picture",
        hint="rename one of them",
    )


def _key(version: str, rows: Sequence[IndexRow], findings: str) -> str:
    """Name the folder: one version may be kept decoded and not decoded, from a folder and from a tar."""
    known = sorted((r.path, r.width, r.height, r.problem, r.group, r.where) for r in rows)
    text = json.dumps([version, known, findings], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _meta(rows: Sequence[IndexRow], classes: Sequence[str]) -> dict[str, Any]:
    usable = [row for row in rows if row.split is not None and not row.problem]
    seen = [row for row in usable if row.width]
    counts = {split: _class_counts([row for row in usable if row.split == split]) for split in _SPLITS}
    sizes = Counter(row.split for row in usable)
    return {
        "task": "detection" if any(row.boxes is not None for row in rows) else "classification",
        "classes": list(classes),
        "image_size": [round(median(r.width for r in seen)), round(median(r.height for r in seen))] if seen else [0, 0],
        "pictures": len(rows),
        "bytes": sum(row.bytes for row in rows),
        "boxes": sum(len(row.boxes) for row in rows if row.boxes),
        "sizes": {split: sizes[split] for split in _SPLITS},
        "counts": {split: {name: counts[split][name] for name in classes} for split in _SPLITS},
    }


def _class_counts(rows: Sequence[IndexRow]) -> Counter[str]:
    """Count pictures of each label, and boxes of each class."""
    counts = Counter(row.label for row in rows if row.label is not None)
    for row in rows:
        if row.boxes:
            counts.update(box.label for box in row.boxes)
    return counts


def load_version(artifact: Artifact, root: str | Path) -> DatasetVersion:
    """Open a version that was made before.

    Args:
        artifact: Of kind ``dataset``.
        root: Folder that the pictures are below, as the spec names it now: it may have moved. Its pictures are not
            read.

    Raises:
        DatasetError: The folder is not there.
        BundleError: The artifact is damaged.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DatasetError("The data folder does not exist.", seen=root, hint="give its new place in data.path")
    return make_version(artifact, folder.resolve(), read_index(artifact.file(INDEX)))


def make_version(artifact: Artifact, root: Path, rows: Sequence[IndexRow]) -> DatasetVersion:
    """Put an artifact and its rows (sorted by path) together.

    Pictures in no split, and those that cannot be read, are rows of the version and samples of no split.
    """
    classes = tuple(artifact.meta["classes"])
    width, height = artifact.meta["image_size"]
    test = _samples(TestSamples, "test", rows, root=root, classes=classes)
    return DatasetVersion(
        artifact=artifact,
        classes=classes,
        train=_samples(TrainSamples, "train", rows, root=root, classes=classes),
        val=_samples(ValSamples, "val", rows, root=root, classes=classes),
        test=SealedSplit(len(test), test),
        image_size=(width, height),
    )


def _samples(kind: type[S], split: Split, rows: Sequence[IndexRow], *, root: Path, classes: tuple[str, ...]) -> S:
    number = {name: i for i, name in enumerate(classes)}
    chosen = [(i, row) for i, row in enumerate(rows) if row.split == split and not row.problem]
    with_boxes = any(row.boxes is not None for row in rows)
    return kind(
        root=root,
        ids=np.array([i for i, _ in chosen], dtype=np.int64),
        paths=tuple(row.path for _, row in chosen),
        labels=np.array([-1 if row.label is None else number[row.label] for _, row in chosen], dtype=np.int64),
        classes=classes,
        where=_ranges([row for _, row in chosen]) if any(row.where is not None for row in rows) else None,
        boxes=_box_table([row for _, row in chosen], number) if with_boxes else None,
    )


def _ranges(rows: Sequence[IndexRow]) -> Ranges:
    places = [row.where or Range(row.path) for row in rows]
    number = {name: i for i, name in enumerate(dict.fromkeys(place.file for place in places))}
    return Ranges(
        files=tuple(number),
        file=np.array([number[place.file] for place in places], dtype=np.int32),
        offset=np.array([place.offset for place in places], dtype=np.int64),
        length=np.array([place.length for place in places], dtype=np.int64),
    )


def _box_table(rows: Sequence[IndexRow], number: Mapping[str, int]) -> BoxTable:
    boxes = [box for row in rows for box in row.boxes or ()]
    counts = [len(row.boxes or ()) for row in rows]
    return BoxTable(
        coords=np.array([box[1:5] for box in boxes], dtype=np.float32).reshape(-1, 4),
        labels=np.array([number[box.label] for box in boxes], dtype=np.int64),
        starts=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
        difficult=np.array([box.difficult for box in boxes], dtype=bool),
        crowd=np.array([box.crowd for box in boxes], dtype=bool),
    )
