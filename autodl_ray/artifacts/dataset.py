"""A version of a data set: its samples, its classes, and three splits of three types.

The type of a split says what may be done with it: an augmenting or sampling function takes
:class:`TrainSamples`, a selecting one takes :class:`ValSamples`, and :class:`TestSamples` comes out of
:meth:`SealedSplit.open` alone, which writes down who opened it and when.
"""

from __future__ import annotations

import datetime
import fcntl
import getpass
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts.store import Artifact, write_atomic
from autodl_ray.errors import BundleError, DatasetError, StoreError

__all__ = [
    "BoxTable",
    "DatasetVersion",
    "LearningSamples",
    "Ranges",
    "Samples",
    "SealedSplit",
    "TestSamples",
    "TrainSamples",
    "ValSamples",
    "check_learning",
]


@dataclass(frozen=True)
class Ranges:
    """Where the bytes of samples are: parts of files below the root.

    Attributes:
        files: The distinct files, relative to the root, with ``/``.
        file: (N,) int32, position in ``files``.
        offset: (N,) int64, in bytes.
        length: (N,) int64, in bytes; -1: to the end of the file.
    """

    files: tuple[str, ...]
    file: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]

    def take(self, positions: npt.NDArray[np.int64]) -> Ranges:
        """Return the ranges at ``positions``."""
        return Ranges(self.files, self.file[positions], self.offset[positions], self.length[positions])

    def read(self, root: Path, position: int) -> bytes:
        """Return the bytes at ``position``."""
        with (root / self.files[self.file[position]]).open("rb") as stream:
            stream.seek(int(self.offset[position]))
            data: bytes = stream.read(int(self.length[position]))
            return data


@dataclass(frozen=True)
class BoxTable:
    """The objects of all samples, one after the other.

    Attributes:
        coords: (M, 4) float32 xmin, ymin, xmax, ymax in pixels of the upright picture (``pascal_voc``).
        labels: (M,) int64 in [0, num_classes).
        starts: (N + 1,) int64: the boxes of sample i are ``starts[i]`` to ``starts[i + 1]`` (excluded).
        difficult: (M,) bool.
        crowd: (M,) bool.
    """

    coords: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    difficult: npt.NDArray[np.bool_]
    crowd: npt.NDArray[np.bool_]

    def of(self, position: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return the (K, 4) boxes and (K,) labels of one sample."""
        first, stop = int(self.starts[position]), int(self.starts[position + 1])
        return self.coords[first:stop], self.labels[first:stop]

    def take(self, positions: npt.NDArray[np.int64]) -> BoxTable:
        """Return the boxes of the samples at ``positions``."""
        counts = np.diff(self.starts)[positions]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.repeat(self.starts[positions] - starts[:-1], counts) + np.arange(starts[-1])
        return BoxTable(self.coords[rows], self.labels[rows], starts, self.difficult[rows], self.crowd[rows])


@dataclass(frozen=True)
class Samples:
    """Samples of one split, in the order of the version's index.

    Attributes:
        root: Folder that the files are below.
        ids: (N,) int64, the row of each sample in the version's index; stable within a version.
        paths: N names within the data set, with ``/``; where ``where`` is None they are files below ``root``.
        labels: (N,) int64 in [0, num_classes); -1 where a picture has boxes instead of a label.
        classes: Class names by label.
        where: Where the bytes are; None: whole files.
        boxes: Objects of the pictures; None for classification.
    """

    root: Path
    ids: npt.NDArray[np.int64]
    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    where: Ranges | None = None
    boxes: BoxTable | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, position: int) -> bytes:
        """Return the bytes of the picture at ``position`` (0 ≤ position < len)."""
        if self.where is not None:
            return self.where.read(self.root, position)
        return (self.root / self.paths[position]).read_bytes()

    def _taken(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> dict[str, Any]:
        chosen = np.asarray(positions, dtype=np.int64)
        return {
            "root": self.root,
            "ids": self.ids[chosen],
            "paths": tuple(self.paths[i] for i in chosen),
            "labels": self.labels[chosen],
            "classes": self.classes,
            "where": None if self.where is None else self.where.take(chosen),
            "boxes": None if self.boxes is None else self.boxes.take(chosen),
        }


class TrainSamples(Samples):
    """The training split: may be augmented, weighted and used for calibration."""

    def take(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> TrainSamples:
        """Return the samples at ``positions``."""
        return TrainSamples(**self._taken(positions))


class ValSamples(Samples):
    """The validation split: selects models; never augmented or sampled."""

    def take(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> ValSamples:
        """Return the samples at ``positions``, e.g. the part that one worker validates."""
        return ValSamples(**self._taken(positions))


LearningSamples = TrainSamples | ValSamples
"""What training and selection see: everything but the test split."""


class TestSamples(Samples):
    """The opened test split: measured once, at the end."""

    __test__ = False  # not a pytest class


def check_learning(samples: object, *, use: str) -> None:
    """Refuse what is no training or validation split, where no type checker looked.

    Raises:
        DatasetError: Such as the test split.
    """
    if not isinstance(samples, LearningSamples):
        raise DatasetError(
            f"{use} does not take this split.",
            seen=type(samples).__name__,
            accepted=f"{TrainSamples.__name__} or {ValSamples.__name__}",
        )


@dataclass(frozen=True)
class SealedSplit:
    """The test split before it is opened: only its size is known."""

    size: int
    _samples: TestSamples

    def open(self, record: Path, *, purpose: str) -> TestSamples:
        """Open the split and write down who, when and what for; what cannot be written down is not opened.

        Several processes may open at once: each opening is written, and one for the same purpose only once.

        Args:
            record: JSON file that keeps the openings.
            purpose: What is measured, e.g. the id of the model.

        Raises:
            BundleError: The record is there and cannot be read.
            StoreError: The record cannot be written.
        """
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            with record.with_name(f".{record.name}.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                rows = _openings(record)
                if not any(row["purpose"] == purpose for row in rows):
                    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                    rows.append({"who": _user(), "when": now, "purpose": purpose})
                    write_atomic(record, json.dumps(rows, indent=1) + "\n")
        except OSError as error:
            raise StoreError(
                "The opening of the test split cannot be written down.", seen=f"{record}: {error}"
            ) from error
        return self._samples


def _openings(record: Path) -> list[dict[str, str]]:
    try:
        rows: list[dict[str, str]] = json.loads(record.read_text(encoding="utf-8"))
        if all(isinstance(row["purpose"], str) for row in rows):
            return rows
        problem = "a row has no purpose"
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as error:
        problem = f"{type(error).__name__}: {error}"
    raise BundleError(
        "The record of who opened the test split is damaged.",
        seen=f"{record}: {problem}",
        accepted="a list of {who, when, purpose}",
        hint="put it back from a copy, or move it away and say so where the result is reported",
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"uid {os.getuid()}"


@dataclass(frozen=True)
class DatasetVersion:
    """A data set at one moment: any other byte, label, box or split gives another ``id``.

    Attributes:
        artifact: Where its index and findings are kept.
        classes: Class names, sorted; a label is a position in them.
        train: Training split.
        val: Validation split.
        test: Sealed test split.
        image_size: Median (width, height) of the pictures, in pixels.
    """

    artifact: Artifact
    classes: tuple[str, ...]
    train: TrainSamples
    val: ValSamples
    test: SealedSplit
    image_size: tuple[int, int]

    @property
    def id(self) -> str:
        """The hash of paths, content, labels, boxes and splits: 32 hex digits."""
        return str(self.artifact.meta["version"])

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)


Split = Literal["train", "val", "test"]
