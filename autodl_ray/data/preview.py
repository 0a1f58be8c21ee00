"""train_batch.png: what the network sees in a training step, with its labels."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from autodl_ray.augment.sheet import Tile, contact_sheet
from autodl_ray.errors import StoreError
from autodl_ray.images import ImageArray

__all__ = ["Shown", "write_train_batch"]

_SIDE = 128
_COLUMNS = 8
_SHOWN_SHARE = 0.01  # of a soft label, below it is not worth a word


class Shown(Protocol):
    """A batch that can be shown.

    It may also have ``boxes``, a sequence of (N, 4) float32 pascal_voc pixels, one a picture, and ``box_labels``, a
    sequence of (N,) int64 classes.
    """

    @property
    def images(self) -> ImageArray:
        """(B, S, S, 3) uint8 RGB."""
        ...

    @property
    def labels(self) -> npt.NDArray[np.int64] | npt.NDArray[np.float32]:
        """(B,) int64 classes, or (B, C) float32 soft labels."""
        ...


def write_train_batch(batch: Shown, classes: Sequence[str], path: Path, *, most: int = 32) -> None:
    """Write a contact sheet of the first pictures of a batch; the file is there whole or not at all.

    Args:
        batch: Augmented pictures with their labels.
        classes: C names.
        path: Of the PNG; an older one is replaced.
        most: Pictures that are shown.

    Raises:
        StoreError: The file cannot be written.
    """
    tiles = [_tile(batch, classes, i) for i in range(min(most, len(batch.images)))]
    sheet = contact_sheet(tiles, columns=_COLUMNS, side=_SIDE)
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(hidden, format="PNG")
        hidden.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise StoreError("The picture of a training batch cannot be written.", seen=f"{path}: {error}") from error


def _tile(batch: Shown, classes: Sequence[str], i: int) -> Tile:
    boxes, box_labels = getattr(batch, "boxes", None), getattr(batch, "box_labels", None)
    names = () if boxes is None or box_labels is None else tuple(classes[int(label)] for label in box_labels[i])
    return Tile(batch.images[i], _caption(batch.labels[i], classes), None if boxes is None else boxes[i], names)


def _caption(label: object, classes: Sequence[str]) -> str:
    """Write a class, or the parts of a soft label, largest first."""
    row = np.asarray(label)
    if row.ndim == 0:
        return classes[int(row)]
    order = [int(c) for c in np.argsort(-row, kind="stable") if row[c] >= _SHOWN_SHARE]
    return "\n".join(f"{row[c]:.0%} {classes[c]}" if row[c] < 1 else classes[c] for c in order)
