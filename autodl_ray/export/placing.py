"""Where exported formats go, and the pictures that stand in for a data set that is not at hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autodl_ray.artifacts import ValSamples
from autodl_ray.artifacts.smoke import smoke_pictures
from autodl_ray.errors import InputError

__all__ = ["made_samples", "place", "refuse_closed", "refuse_foreign"]

_OURS = "export.json"


def refuse_foreign(out: Path, names: Sequence[str]) -> None:
    """Look at the folders of the formats before anything is made.

    Raises:
        InputError: One is there already and was not written by `autodl export`, or nothing can be written there.
    """
    if out.is_file():
        raise InputError("There is a file of that name.", seen=str(out), accepted="a folder")
    refuse_closed(out)
    for name in names:
        folder = out / name
        if folder.exists() and not (folder / _OURS).is_file() and (folder.is_file() or any(folder.iterdir())):
            raise InputError("The folder holds something else.", seen=str(folder), hint="give another one with --out")


def refuse_closed(folder: Path) -> None:
    """Look whether a folder can be made, where it is not there, and written.

    Raises:
        InputError: A file is in its way, or it belongs to somebody else.
    """
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError("Nothing can be written there.", seen=str(folder), hint="give another one with --out")


def place(made: Path, target: Path) -> None:
    """Move a finished folder into place; an earlier export there is replaced."""
    if target.exists():
        shutil.rmtree(target)
    shutil.move(made, target)


def made_samples(folder: Path, classes: Sequence[str]) -> ValSamples:
    """Write 48 made pictures, of several sizes, most of them not square, as PNG files.

    Their labels say nothing: no score is to be made of them.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for turn in range(8):
        for i, picture in enumerate(smoke_pictures()):
            turned = np.ascontiguousarray(np.rot90(picture[:, :, [0, 1, 2] if turn < 4 else [2, 0, 1]], turn))
            paths.append(f"{turn}-{i}.png")
            Image.fromarray(turned).save(folder / paths[-1], compress_level=1)
    labels = np.zeros(len(paths), dtype=np.int64)
    return ValSamples(folder, np.arange(len(paths)), tuple(paths), labels, tuple(classes))
