"""A version of a data set: its samples, its classes, and three splits of three types.

The type of a split says what may be done with it: an augmenting or sampling function takes
:class:`TrainSamples`, a selecting one takes :class:`ValSamples`, and :class:`TestSamples` comes out of
:meth:`SealedSplit.open` alone, which writes down who opened it and when.
"""

from __future__ import annotations

import datetime
import getpass
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts.store import Artifact, write_atomic

__all__ = ["DatasetVersion", "Samples", "SealedSplit", "TestSamples", "TrainSamples", "ValSamples"]


@dataclass(frozen=True)
class Samples:
    """Samples of one split, in the order of the version's index.

    Attributes:
        root: Folder that the paths are relative to.
        ids: (N,) int64, the row of each sample in the version's index; stable within a version.
        paths: N paths relative to ``root``, with ``/``.
        labels: (N,) int64 in [0, num_classes).
        classes: Class names by label.
    """

    root: Path
    ids: npt.NDArray[np.int64]
    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, position: int) -> bytes:
        """Return the bytes of the file of the sample at ``position`` (0 ≤ position < len)."""
        return (self.root / self.paths[position]).read_bytes()


class TrainSamples(Samples):
    """The training split: may be augmented, weighted and used for calibration."""

    def take(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> TrainSamples:
        """Return the samples at ``positions``."""
        chosen = np.asarray(positions, dtype=np.int64)
        return TrainSamples(
            self.root,
            self.ids[chosen],
            tuple(self.paths[i] for i in chosen),
            self.labels[chosen],
            self.classes,
        )


class ValSamples(Samples):
    """The validation split: selects models; never augmented or sampled."""


class TestSamples(Samples):
    """The opened test split: measured once, at the end."""

    __test__ = False  # not a pytest class


@dataclass(frozen=True)
class SealedSplit:
    """The test split before it is opened: only its size is known."""

    size: int
    _samples: TestSamples

    def open(self, record: Path, *, purpose: str) -> TestSamples:
        """Open the split and write down who, when and what for.

        Args:
            record: JSON file that keeps the openings; an opening for the same purpose is not written twice.
            purpose: What is measured, e.g. the id of the model.
        """
        rows = json.loads(record.read_text()) if record.exists() else []
        if not any(row["purpose"] == purpose for row in rows):
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            rows.append({"who": _user(), "when": now, "purpose": purpose})
            write_atomic(record, json.dumps(rows, indent=1) + "\n")
        return self._samples


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"uid {os.getuid()}"


@dataclass(frozen=True)
class DatasetVersion:
    """A data set at one moment: any other byte, label or split gives another ``id``.

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
        """The hash of content, labels and splits."""
        return self.artifact.id

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)


Split = Literal["train", "val", "test"]
