"""The index of a data set version: one line a picture, written and read."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TypeVar, cast, get_args

import numpy as np

from autodl_ray.artifacts import Artifact, DatasetVersion, Samples, SealedSplit, TestSamples, TrainSamples, ValSamples
from autodl_ray.artifacts.dataset import Split
from autodl_ray.errors import BundleError, DatasetError

__all__ = ["FINDINGS", "INDEX", "IndexRow", "index_text", "load_version", "read_index"]

INDEX = "index.csv"
FINDINGS = "findings.json"
S = TypeVar("S", bound=Samples)


@dataclass(frozen=True)
class IndexRow:
    """A picture of the version: where it is, what it shows, where it belongs, and its content."""

    path: str
    label: str
    split: Split
    sha256: str
    width: int
    height: int
    bytes: int


_COLUMNS = tuple(field.name for field in fields(IndexRow))


def index_text(rows: Sequence[IndexRow]) -> str:
    """Return the index as CSV, sorted by path: equal rows give equal text on every machine."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(astuple(row) for row in sorted(rows, key=lambda row: row.path))
    return stream.getvalue()


def read_index(text: str) -> list[IndexRow]:
    """Parse an index.

    Raises:
        BundleError: It is damaged.
    """
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise BundleError("The index of the data set is damaged.", seen=rows[:1], accepted=",".join(_COLUMNS))
    try:
        return [IndexRow(p, label, _split(s), sha, int(w), int(h), int(b)) for p, label, s, sha, w, h, b in rows[1:]]
    except ValueError as error:
        raise BundleError("The index of the data set is damaged.", seen=str(error)) from error


def _split(text: str) -> Split:
    if text not in get_args(Split):
        raise ValueError(f"{text!r} is no split")
    return cast(Split, text)


def load_version(artifact: Artifact, root: str | Path) -> DatasetVersion:
    """Open a version that was made before.

    Args:
        artifact: Of kind ``dataset``.
        root: Folder of the pictures, as the spec names it now: it may have moved. Its pictures are not read.

    Raises:
        DatasetError: The folder is not there.
        BundleError: The artifact is damaged.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DatasetError("The data folder does not exist.", seen=root, hint="give its new place in data.path")
    rows = read_index(artifact.file(INDEX).read_text(encoding="utf-8"))
    return make_version(artifact, folder.resolve(), rows)


def make_version(artifact: Artifact, root: Path, rows: Sequence[IndexRow]) -> DatasetVersion:
    """Put an artifact and its rows (sorted by path) together."""
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
    chosen = [(i, row) for i, row in enumerate(rows) if row.split == split]
    return kind(
        root=root,
        ids=np.array([i for i, _ in chosen], dtype=np.int64),
        paths=tuple(row.path for _, row in chosen),
        labels=np.array([number[row.label] for _, row in chosen], dtype=np.int64),
        classes=classes,
    )
