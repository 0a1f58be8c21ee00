"""What a format is: how it is recognised, read and written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from autodl_ray.data.formats.walk import SKIPPED_FOLDERS
from autodl_ray.data.records import Listing, Record
from autodl_ray.images import IMAGE_SUFFIXES

__all__ = ["Format", "Place", "Sign", "Target", "Writer"]

_GLANCE = 400  # entries of a folder that recognising looks at


class Sign(NamedTuple):
    """Why a place may be of a format.

    Attributes:
        why: What was seen.
        confidence: In (0, 1].
        uses: Names of the place's own files and folders that the format explains.
    """

    why: str
    confidence: float
    uses: frozenset[str] = frozenset()


class Place:
    """A glance at a file or folder: the first names in it, and no more than that.

    Args:
        path: The file or folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_file = path.is_file()

    @cached_property
    def _names(self) -> tuple[list[str], list[str]]:
        files: list[str] = []
        folders: list[str] = []
        if self.is_file:
            return [self.path.name], []
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
                        continue
                    if entry.name.isprintable() and entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.name.isprintable() and entry.is_file():  # no pipe, which would be waited for
                        files.append(entry.name)
                    if len(files) + len(folders) >= _GLANCE:
                        break
        except OSError:
            pass
        return sorted(files), sorted(folders)

    @property
    def files(self) -> list[str]:
        """Names of its files, sorted (a file: its own name)."""
        return self._names[0]

    @property
    def folders(self) -> list[str]:
        """Names of its folders, sorted."""
        return self._names[1]

    def named(self, *names: str) -> str | None:
        """Return the folder that has one of these names, whatever its case."""
        return next((f for name in names for f in self.folders if f.casefold() == name.casefold()), None)

    def ending(self, *suffixes: str) -> list[str]:
        """Return the files with one of these endings."""
        return [name for name in self.files if name.lower().endswith(suffixes)]

    def child(self, name: str) -> Place:
        """Glance at a folder in it."""
        return Place(self.path / name)

    def file(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.path if self.is_file else self.path / name

    def has_pictures(self, depth: int = 0) -> bool:
        """Whether pictures lie in it, or in folders at most ``depth`` below."""
        return self.holds(IMAGE_SUFFIXES, depth)

    def holds(self, suffixes: tuple[str, ...], depth: int = 0) -> bool:
        """Whether files with one of these endings lie in it, or in folders at most ``depth`` below."""
        if self.ending(*suffixes):
            return True
        return depth > 0 and any(self.child(name).holds(suffixes, depth - 1) for name in self.folders)


@dataclass
class Target:
    """A new data set that is being written.

    Attributes:
        folder: Empty folder to write into.
        read: Returns the bytes of a record.
        done: Called after each picture.
        notes: What the format could not hold.
    """

    folder: Path
    read: Callable[[Record], bytes]
    done: Callable[[], None] = lambda: None
    notes: list[str] = field(default_factory=list)


class Writer(Protocol):
    """Writes a data set in a format."""

    def __call__(self, listing: Listing, target: Target) -> None:
        """Write the pictures first, then what describes them.

        Raises:
            DatasetError: The format cannot hold this data set.
        """


@dataclass(frozen=True)
class Format:
    """A way to lay out a data set.

    Attributes:
        name: As users write it.
        doc: One line.
        look: Returns the sign that a place is of this format, or None; reads a few names and headers only.
        read: Lists a place; the second argument is a folder for what has to be re-encoded.
        write: Writes a data set; None where the format is only read.
        boxes: Whether it holds boxes.
        labels: Whether it holds one label a picture.
        splits: Whether it holds train/val/test.
    """

    name: str
    doc: str
    look: Callable[[Place], Sign | None]
    read: Callable[[Path, Path], Listing]
    write: Writer | None
    boxes: bool
    labels: bool
    splits: bool = True
