"""Walking a folder once: which pictures and other files it holds, without following anything that leads out."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.records import Listing, Problem, Stamp
from autodl_ray.errors import DatasetError, near_names
from autodl_ray.images import IMAGE_SUFFIXES

__all__ = [
    "SKIPPED_FOLDERS",
    "SPLIT_NAMES",
    "Finder",
    "Tree",
    "check_twins",
    "nfc",
    "open_root",
    "split_named",
    "split_of_file",
    "stamp_of",
    "start_listing",
    "walk",
]

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_SPLIT_WORDS: dict[str, Split] = {**SPLIT_NAMES, "training": "train", "dev": "val", "testing": "test"}
SKIPPED_FOLDERS = frozenset({"__MACOSX", "@eaDir"})
_MOST_DEPTH = 64


@dataclass
class Tree:
    """What lies below a folder; hidden files and folders are left out.

    Attributes:
        root: The folder, without links.
        pictures: Files with the suffix of a picture, by path (relative, with ``/``).
        others: All other files.
        bad_names: Pictures whose name is not valid UTF-8, shown with escapes.
        linked_folders: Links to folders, which are not followed.
        folders: Folders that are no links.
        special: Pipes, sockets and devices.
    """

    root: Path
    pictures: dict[str, Stamp] = field(default_factory=dict)
    others: dict[str, Stamp] = field(default_factory=dict)
    bad_names: list[str] = field(default_factory=list)
    linked_folders: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    special: int = 0

    def stamp(self, path: str) -> Stamp:
        """Return the stamp of a file; zeros for one that is not there."""
        return self.pictures.get(path) or self.others.get(path) or (0, 0, 0, 0)


class Finder:
    """Finds the picture that an annotation names.

    Args:
        paths: Paths of the pictures.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = {nfc(path): path for path in paths}

    def find(self, name: str, folders: Iterable[str] = ("",)) -> str | None:
        """Return the path of ``name`` in the first of ``folders`` that has it, else by a unique end of its path.

        A name may leave out the suffix.
        """
        name = nfc(name).replace("\\", "/").removeprefix("./")
        for folder in folders:
            path = f"{folder}/{name}" if folder else name
            found = self._paths.get(path) or self._by_stem.get(path)
            if found:
                return found
        last = name.rsplit("/", 1)[-1]
        same = [path for path in self._by_name.get(last, ()) if f"/{nfc(path)}".endswith(f"/{name}")]
        same = same or list(self._by_name.get(last, ()))
        return same[0] if len(same) == 1 else None

    @cached_property
    def _by_stem(self) -> dict[str, str]:
        return {path.rsplit(".", 1)[0]: found for path, found in self._paths.items()}

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = defaultdict(list)
        for path, found in self._paths.items():
            last = path.rsplit("/", 1)[-1]
            names[last].append(found)
            if "." in last:
                names[last.rsplit(".", 1)[0]].append(found)
        return names


def nfc(text: str) -> str:
    """Return the Unicode form NFC of a text."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def split_named(name: str) -> Split | None:
    """Return the split that a folder or file name stands for, such as ``Valid`` or ``train2017``; None for others."""
    return _SPLIT_WORDS.get(name.casefold().rstrip("0123456789-_."))


def split_of_file(name: str) -> Split | None:
    """Return the split that a file name starts with, such as ``train-00000-of-00003.parquet``; None for others."""
    letters = re.match(r"[a-z]*", name.rsplit("/", 1)[-1].casefold())
    return _SPLIT_WORDS.get(letters[0]) if letters else None


def open_root(path: str | Path) -> Path:
    """Return the folder without links.

    Raises:
        DatasetError: It is missing, no folder, or cannot be read.
    """
    root = Path(path).expanduser()
    if not root.exists():
        near = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
        raise DatasetError("The data folder does not exist.", seen=path, hint=near_names(root.name, near))
    if not root.is_dir():
        raise DatasetError("The data path is not a folder.", seen=path, accepted="a folder with one folder a class")
    try:
        os.scandir(root).close()
    except OSError as error:
        raise DatasetError("The data folder cannot be read.", seen=f"{path}: {error.strerror}") from error
    return root.resolve()


def walk(path: str | Path) -> Tree:
    """List the files of a folder: one ``stat`` a file.

    Raises:
        DatasetError: The folder is missing or unreadable, or a link leads out of it.
    """
    tree = Tree(open_root(path))
    try:
        for entry, name in _entries(tree, str(tree.root), "", 0):
            if not _is_utf8(name):
                tree.bad_names.append(name.encode("utf-8", "backslashreplace").decode())
            elif name.lower().endswith(IMAGE_SUFFIXES):
                tree.pictures[name] = _stamp(entry)
            else:
                tree.others[name] = _stamp(entry)
    except OSError as error:
        raise DatasetError("A folder cannot be read.", seen=f"{error.filename}: {error.strerror}") from error
    return tree


def _entries(tree: Tree, folder: str, prefix: str, depth: int) -> Iterator[tuple[os.DirEntry[str], str]]:
    if depth > _MOST_DEPTH:
        raise DatasetError("Folders lie too deep.", seen=prefix, accepted=f"at most {_MOST_DEPTH} below each other")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{prefix}{entry.name}"
            linked = entry.is_symlink()
            if linked:
                _check_link(tree, Path(entry.path), path)
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in SKIPPED_FOLDERS:
                    tree.folders.append(path)
                    yield from _entries(tree, entry.path, f"{path}/", depth + 1)
            elif linked and entry.is_dir():
                tree.linked_folders.append(path)
            elif linked or entry.is_file():
                yield entry, path
            else:
                tree.special += 1


def _check_link(tree: Tree, link: Path, path: str) -> None:
    target = link.resolve()
    if not target.is_relative_to(tree.root):
        raise DatasetError(
            "A link leads out of the data folder.",
            seen=f"{path} -> {target}",
            accepted="files, and links to files within the folder",
            hint="copy the pictures into the folder",
        )


def stamp_of(stat: os.stat_result) -> Stamp:
    """Return the stamp of a file."""
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def _stamp(entry: os.DirEntry[str]) -> Stamp:
    try:
        return stamp_of(entry.stat())
    except OSError:  # a broken link: reading it will say so
        return (0, 0, 0, 0)


def _is_utf8(path: str) -> bool:
    if path.isascii():
        return True
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def start_listing(tree: Tree, name: str) -> Listing:
    """Return an empty listing of the format ``name`` that says what the walk passed over."""
    listing = Listing(tree.root, name, [])
    listing.problems.extend(Problem(path, "The name is not valid UTF-8.") for path in sorted(tree.bad_names))
    if tree.linked_folders:
        listing.passed_over["links to folders"] = len(tree.linked_folders)
    if tree.special:
        listing.passed_over["pipes, sockets and devices"] = tree.special
    return listing


def check_twins(names: Iterable[str]) -> None:
    """Refuse class names that differ only by case or Unicode form.

    Raises:
        DatasetError: There are two such names.
    """
    by_key: dict[str, set[str]] = {}
    for name in names:
        by_key.setdefault(nfc(nfc(name).casefold()), set()).add(name)
    for same in by_key.values():
        if len(same) > 1:
            raise DatasetError(
                "Two classes differ only by case or Unicode form.",
                seen=" and ".join(repr(name) for name in sorted(same)),
                accepted="class names that stay different on every file system",
                hint="rename or merge the folders",
            )
