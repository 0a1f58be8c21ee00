"""What a format is: how it is recognised, read and written."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from autodl_ray.data.formats.walk import SKIPPED_FOLDERS
from autodl_ray.data.records import Listing, Record
from autodl_ray.images import IMAGE_SUFFIXES

__all__ = ["Format", "Place", "Sign", "Target", "Writer"]

_GLANCE = 400  # names of each kind that recognising looks at
_MOST_ENTRIES = 200_000


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
        self._children: dict[str, Place] = {}

    @cached_property
    def _names(self) -> tuple[list[str], list[str]]:
        files: list[str] = []
        folders: list[str] = []
        seen: Counter[str] = Counter()
        if self.is_file:
            return [self.path.name], []
        with contextlib.suppress(OSError), os.scandir(self.path) as entries:
            for entry in islice(entries, _MOST_ENTRIES):
                if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS or not entry.name.isprintable():
                    continue
                is_folder = entry.is_dir(follow_symlinks=False)
                kind = "/" if is_folder else entry.name.rpartition(".")[2].lower()
                seen[kind] += 1
                # A few of each kind, so that the one table among a thousand pictures is seen.
                if seen[kind] <= _GLANCE and (is_folder or entry.is_file()):  # no pipe, which would be waited for
                    (folders if is_folder else files).append(entry.name)
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
        if name not in self._children:
            self._children[name] = Place(self.path / name)
        return self._children[name]

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
