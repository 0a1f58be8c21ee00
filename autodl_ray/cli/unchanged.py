"""A snapshot that was taken before, of a folder and into a store that are both untouched since, is told again.

The standard library only: importing the rest takes longer than looking at 10,000 files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import marshal
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["remember", "told_again"]

_RACY_NS = 100_000_000
_STORE_FOLDERS = ("datasets/refs", "objects/packs")


def told_again(arguments: Sequence[str]) -> bool:
    """Print what `autodl data snapshot` printed for the same words, where it would do nothing.

    That is so when every file below the data folder, every file that the words name, the list of versions, the packs,
    the index of the version and this package have the size, times and inodes that they had then.

    Args:
        arguments: The words behind ``autodl``.
    """
    if list(arguments[:2]) != ["data", "snapshot"]:
        return False
    store = _store(arguments)
    try:
        memory = json.loads(_file(store, arguments).read_text(encoding="utf-8"))
        root = arguments[memory["root"]]
        if _fingerprint(root, store, memory["key"], arguments) != memory["fingerprint"]:
            return False
        sys.stdout.write(memory["json" if "--json" in arguments else "text"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False  # nothing is remembered, or something is gone: the long way says what
    return True


def remember(arguments: Sequence[str], *, root: str, key: str, text: str, document: dict[str, Any]) -> None:
    """Remember what is to be told.

    Args:
        arguments: The words behind ``autodl``.
        root: The one of them that is the folder.
        key: Of the artifact in the store.
        text: For people.
        document: For ``--json``.
    """
    if root not in arguments or not Path(root).expanduser().is_dir():
        return
    store = _store(arguments)
    with contextlib.suppress(OSError):  # a full disk: the next time takes the long way
        fingerprint = _fingerprint(root, store, key, arguments)
        if fingerprint is None:
            return
        memory = {
            "root": list(arguments).index(root),
            "key": key,
            "fingerprint": fingerprint,
            "text": text,
            "json": json.dumps(document, indent=1, ensure_ascii=False) + "\n",
        }
        path = _file(store, arguments)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(memory), encoding="utf-8")
        temporary.replace(path)


def _store(arguments: Sequence[str]) -> str:
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "--store":
            return after
        if word.startswith("--store="):
            return word.removeprefix("--store=")
    return os.environ.get("AUTODL_STORE") or "runs"


def _file(store: str, arguments: Sequence[str]) -> Path:
    words = [word for word in arguments if word != "--json"]
    name = hashlib.sha256(json.dumps([os.getcwd(), store, words]).encode()).hexdigest()[:16]
    return Path(store).expanduser() / "cache" / f"told-{name}.json"


def _fingerprint(root: str, store: str, key: str, arguments: Sequence[str]) -> str | None:
    """Hash every name and stamp; None where data was written so lately that it could change without a trace."""
    home = Path(store).expanduser()
    package = str(Path(__file__).parents[1])
    data = list(_stamps(str(Path(root).expanduser()), ""))
    data += [_row(word, os.stat(word)) for word in arguments if os.path.isfile(word)]
    if max(max(row[2:4]) for row in data) > time.time_ns() - _RACY_NS:
        return None
    # Files of the store are never written in place: another content is another inode.
    ours = [
        row
        for folder in (package, *(str(home / name) for name in (*_STORE_FOLDERS, key)))
        for row in _stamps(folder, "")
    ]
    return hashlib.sha256(marshal.dumps(data + ours, 2)).hexdigest()


def _stamps(folder: str, prefix: str) -> Iterator[tuple[str, int, int, int, int]]:
    folders = []
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == "__pycache__":
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                found.append(_row(prefix + entry.name, entry.stat()))
    yield from sorted(found)
    for name in sorted(folders):
        yield prefix + name, 0, 0, 0, 0
        yield from _stamps(f"{folder}/{name}", f"{prefix}{name}/")


def _row(name: str, stat: os.stat_result) -> tuple[str, int, int, int, int]:
    return name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
