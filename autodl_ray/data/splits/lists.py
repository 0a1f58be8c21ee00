"""Reading published split lists: one file name a line, with or without a label behind it."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.records import some
from autodl_ray.errors import DatasetError
from autodl_ray.spec import SplitSpec

__all__ = ["read_lists"]


def read_lists(spec: SplitSpec, paths: Sequence[str], *, root: Path) -> dict[str, Split]:
    """Return the split of each listed path.

    A line names a file by its relative path or by its name alone. Names may have spaces: what stands behind the
    last white space, comma or tab is taken as a label only when the whole line is no file.

    Args:
        spec: With ``train_list``, ``val_list`` and ``test_list`` set; each is a path as it is typed, or within the
            data folder.
        paths: Every picture of the data set, relative to ``root``.
        root: Folder of the data set.

    Raises:
        DatasetError: A list is missing, names no or several files by one name, or two lists name the same file.
    """
    index = _index(paths)
    found: dict[str, Split] = {}
    lists: dict[Split, str | None] = {"train": spec.train_list, "val": spec.val_list, "test": spec.test_list}
    for split, name in lists.items():
        for path in _read_list(_locate(str(name), root), index):
            if found.setdefault(path, split) != split:
                raise DatasetError(
                    "Two split lists name the same file.", seen=f"{path} in {found[path]} and {split}", accepted="one"
                )
    return found


def _index(paths: Sequence[str]) -> dict[str, set[str]]:
    """Map relative paths and bare names (Unicode form NFC) to the paths that they may mean."""
    index: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        index[unicodedata.normalize("NFC", path.rsplit("/", 1)[-1])].add(path)
    for path in paths:
        index[unicodedata.normalize("NFC", path)] = {path}
    return dict(index)


def _locate(name: str, root: Path) -> Path:
    typed = Path(name).expanduser()
    for path in (typed, root / name):
        if path.is_file():
            return path
    raise DatasetError("A split list does not exist.", seen=name, accepted="a text file with one file name a line")


def _read_list(path: Path, index: Mapping[str, set[str]]) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError("A split list cannot be read.", seen=f"{path.name}: {error}", accepted="UTF-8") from error
    found: list[str] = []
    missing: list[str] = []
    ambiguous: list[str] = []
    for number, raw in enumerate(lines, start=1):
        line = unicodedata.normalize("NFC", raw.strip()).replace("\\", "/").removeprefix("./")
        candidates = _match(line, index)
        if len(candidates) == 1:
            found.extend(candidates)
        elif candidates:
            ambiguous.append(f"{line} (line {number}: {some(sorted(candidates), 2)})")
        elif line and not line.startswith("#"):
            missing.append(f"{line} (line {number})")
    _complain(path, missing, ambiguous)
    return found


def _match(line: str, index: Mapping[str, set[str]]) -> set[str]:
    for name in (line, _before(line, None), _before(line, ",")):
        if name in index:
            return index[name]
    return set()


def _before(line: str, separator: str | None) -> str:
    parts = line.rsplit(separator, 1)
    return parts[0].strip() if len(parts) == 2 else line


def _complain(path: Path, missing: Sequence[str], ambiguous: Sequence[str]) -> None:
    if missing:
        raise DatasetError(
            f"The split list {path.name} names files that are not in the data folder.",
            seen=f"{len(missing)}: {some(missing)}",
            accepted="file names, or paths relative to the data folder",
        )
    if ambiguous:
        raise DatasetError(
            f"The split list {path.name} names files that are there more than once.",
            seen=f"{len(ambiguous)}: {some(ambiguous, 3)}",
            accepted="paths relative to the data folder, such as class/name.jpg",
        )
