"""Reading the layout of a folder of pictures: one folder a class, below train/val/test where there are such."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from autodl_ray.artifacts.dataset import Split
from autodl_ray.errors import DatasetError, near_names
from autodl_ray.images import IMAGE_SUFFIXES

__all__ = ["FolderScan", "PictureFile", "scan_folder", "some"]

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_SKIPPED_FOLDERS = {"__MACOSX", "@eaDir"}


@dataclass(frozen=True)
class PictureFile:
    """A file that says it is a picture.

    Attributes:
        path: Relative to the root, with ``/``.
        label: Name of its class, in Unicode form NFC.
        split: Of the folder it lies in, where the folder is divided.
        stamp: (size in bytes, mtime ns, ctime ns, inode): while it is the same, so is the file.
    """

    path: str
    label: str
    split: Split | None
    stamp: tuple[int, int, int, int]


@dataclass
class FolderScan:
    """What lies in a folder.

    Attributes:
        root: The folder, without links.
        files: The pictures, sorted by path.
        is_split: Whether the folder is divided into train/val/test.
        not_pictures: How many files have no suffix of a picture.
        outside: Pictures that lie in no class folder.
        bad_names: Pictures whose name is not valid UTF-8, shown with escapes.
        linked_folders: Links to folders, which are not followed.
        empty_classes: Class folders without a picture.
    """

    root: Path
    files: list[PictureFile] = field(default_factory=list)
    is_split: bool = False
    not_pictures: int = 0
    outside: list[str] = field(default_factory=list)
    bad_names: list[str] = field(default_factory=list)
    linked_folders: list[str] = field(default_factory=list)
    empty_classes: list[str] = field(default_factory=list)


def some(names: Iterable[str], most: int = 5) -> str:
    """Name the first few of many."""
    shown = list(names)
    more = f" … and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def scan_folder(path: str | Path) -> FolderScan:
    """List the pictures of a folder, with their classes and, where it is divided, their splits.

    Hidden files and folders are passed over; folders below a class belong to the class.

    Args:
        path: The folder. Its classes are its folders, or those of its ``train``, ``val`` (or ``valid``,
            ``validation``) and ``test`` folders.

    Raises:
        DatasetError: The folder is missing, empty or no folder; it has fewer than two classes, or two whose names
            differ only by case or Unicode form; a link leads out of it; split and class folders are mixed.
    """
    scan = FolderScan(_open_root(path))
    _walk(scan)
    scan.files.sort(key=lambda file: file.path)
    if not scan.files:
        raise DatasetError(
            "The folder holds no pictures in class folders.",
            seen=f"{path}: {len(scan.outside)} pictures outside a class folder, {scan.not_pictures} other files",
            accepted=f"one folder a class, with {', '.join(IMAGE_SUFFIXES)} files",
        )
    scan.is_split = _find_splits(scan)
    _check_classes(scan)
    return scan


def _open_root(path: str | Path) -> Path:
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


def _walk(scan: FolderScan) -> None:
    for entry, path in _entries(scan, scan.root, ""):
        if not path.lower().endswith(IMAGE_SUFFIXES):
            scan.not_pictures += 1
        elif not _is_utf8(path):
            scan.bad_names.append(path.encode("utf-8", "backslashreplace").decode())
        elif "/" not in path:
            scan.outside.append(path)
        else:
            label = unicodedata.normalize("NFC", path.split("/", 1)[0])
            scan.files.append(PictureFile(path, label, None, _stamp(entry)))


def _entries(scan: FolderScan, folder: Path, prefix: str) -> Iterator[tuple[os.DirEntry[str], str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{prefix}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                _check_link(scan, Path(entry.path), path)
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED_FOLDERS:
                    yield from _entries(scan, Path(entry.path), f"{path}/")
            elif entry.is_dir():
                scan.linked_folders.append(path)
            else:
                yield entry, path


def _check_link(scan: FolderScan, link: Path, path: str) -> None:
    target = link.resolve()
    if not target.is_relative_to(scan.root):
        raise DatasetError(
            "A link leads out of the data folder.",
            seen=f"{path} -> {target}",
            accepted="files, and links to files within the folder",
            hint="copy the pictures into the folder",
        )


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int, int, int]:
    try:
        stat = entry.stat()
    except OSError:  # a broken link: reading it will say so
        return (0, 0, 0, 0)
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def _is_utf8(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _find_splits(scan: FolderScan) -> bool:
    """Take the top folders as splits when they are named so, and the class from one level below."""
    tops = sorted({file.label for file in scan.files})
    splits = {top: SPLIT_NAMES[top.casefold()] for top in tops if top.casefold() in SPLIT_NAMES}
    divided = {top for top in splits if any(f.label == top and f.path.count("/") > 1 for f in scan.files)}
    if not divided or (len(divided) == 1 and len(tops) > 1):  # a class may well be called "train"
        return False
    if len(splits) < len(tops):
        raise DatasetError(
            "The folder mixes split folders and class folders.",
            seen=", ".join(tops),
            accepted="either one folder a class, or train, val and test with the classes below",
        )
    if sorted(splits.values()) != sorted(set(splits.values())) or "train" not in splits.values():
        raise DatasetError(
            "The split folders are not complete, or one is there twice.",
            seen=", ".join(tops),
            accepted="train, with val (or valid, validation) and test where they are given",
        )
    scan.outside.extend(file.path for file in scan.files if file.path.count("/") == 1)
    scan.files = [_below(file, splits[file.label]) for file in scan.files if file.path.count("/") > 1]
    return True


def _below(file: PictureFile, split: Split) -> PictureFile:
    label = unicodedata.normalize("NFC", file.path.split("/", 2)[1])
    return PictureFile(file.path, label, split, file.stamp)


def _check_classes(scan: FolderScan) -> None:
    depth = 1 if scan.is_split else 0
    folders = {file.path.split("/")[depth] for file in scan.files}
    labels = {file.label for file in scan.files}
    by_key: dict[str, set[str]] = {}
    for folder in folders:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", folder).casefold())
        by_key.setdefault(key, set()).add(folder)
    for same in by_key.values():
        if len(same) > 1:
            raise DatasetError(
                "Two classes differ only by case or Unicode form.",
                seen=" and ".join(repr(name) for name in sorted(same)),
                accepted="class names that stay different on every file system",
                hint="rename or merge the folders",
            )
    if len(labels) < 2:
        raise DatasetError(
            "The folder has only one class.",
            seen=some(sorted(labels)),
            accepted="at least two folders with pictures",
        )
    scan.empty_classes = _empty_folders(scan, depth, labels)


def _empty_folders(scan: FolderScan, depth: int, labels: set[str]) -> list[str]:
    parents = [p for p in scan.root.iterdir() if p.is_dir() and not p.name.startswith(".")] if depth else [scan.root]
    names = {
        unicodedata.normalize("NFC", child.name)
        for parent in parents
        for child in parent.iterdir()
        if child.is_dir() and not child.is_symlink() and not child.name.startswith(".")
    }
    return sorted(names - labels - _SKIPPED_FOLDERS)
