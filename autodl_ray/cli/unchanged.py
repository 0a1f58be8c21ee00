"""A snapshot that was taken before, of a folder and into a store that are both untouched since, is told again.

Nothing is imported but what Python has loaded anyway: importing the rest takes longer than looking at 10,000 files.
"""

from __future__ import annotations

import gc
import marshal
import os
import sys
import time
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["remember", "told_again"]

_RACY_NS = 100_000_000
_STORE_FOLDERS = ("datasets/refs", "objects/packs")
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


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
    collects = gc.isenabled()
    gc.disable()  # ten thousand small tuples, none of them in a circle
    try:
        with open(_file(store, arguments), "rb") as stream:
            head, text, document, stamps = stream.read().split(b"\0", 3)
        question, root, key = head.decode().split("\n")
        if question != _question(store, arguments) or _stamps_of(root, store, key, arguments) != stamps:
            return False
        sys.stdout.write((document if "--json" in arguments else text).decode())
    except (OSError, ValueError):
        return False  # nothing is remembered, or something is gone: the long way says what
    finally:
        if collects:
            gc.enable()
    return True


def remember(arguments: Sequence[str], *, root: str, key: str, text: str, document: str) -> None:
    """Remember what is to be told.

    Args:
        arguments: The words behind ``autodl``.
        root: The one of them that is the folder.
        key: Of the artifact in the store.
        text: For people.
        document: For ``--json``.
    """
    folder = os.path.expanduser(root)
    if root not in arguments or not os.path.isdir(folder):
        return
    store = _store(arguments)
    path = _file(store, arguments)
    temporary = f"{path}.{os.getpid()}"
    try:
        stamps = _stamps_of(folder, store, key, arguments)
        if stamps is None:
            return
        head = "\n".join((_question(store, arguments), folder, key))
        if "\0" in head + text + document or head.count("\n") > 2:
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "wb") as stream:
            stream.write("\0".join((head, text, document, "")).encode() + stamps)
        os.replace(temporary, path)
    except (OSError, UnicodeError):
        return  # a full disk, or a name that is not UTF-8: the next time takes the long way


def _store(arguments: Sequence[str]) -> str:
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "--store":
            return after
        if word.startswith("--store="):
            return word.removeprefix("--store=")
    return os.environ.get("AUTODL_STORE") or "runs"


def _question(store: str, arguments: Sequence[str]) -> str:
    """Everything that the answer depends on beside the files."""
    return repr((os.getcwd(), store, [word for word in arguments if word != "--json"]))


def _file(store: str, arguments: Sequence[str]) -> str:
    name = f"{zlib.crc32(_question(store, arguments).encode('utf-8', 'surrogateescape')):08x}"
    return os.path.join(os.path.expanduser(store), "cache", f"told-{name}")


def _stamps_of(root: str, store: str, key: str, arguments: Sequence[str]) -> bytes | None:
    """Every name and stamp; None where data was written so lately that it could change without a trace."""
    home = os.path.expanduser(store)
    data = _scan(root)
    data += [_row(word, os.stat(word)) for word in arguments if os.path.isfile(word)]
    if max(max(row[2], row[3]) for row in data) > time.time_ns() - _RACY_NS:
        return None
    # Files of the store are never written in place: another content is another inode.
    ours = [_scan(os.path.join(home, name)) for name in (*_STORE_FOLDERS, key)]
    return marshal.dumps([data, ours, _scan(_PACKAGE)], 2)


def _scan(top: str) -> list[tuple[str, int, int, int, int]]:
    """List the stamps below a folder in the order of the file system, which stays while nothing is touched."""
    rows = []
    todo = [top]
    while todo:
        folder = todo.pop()
        rows.append((folder[len(top) :], 0, 0, 0, 0))
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    rows.append(_row(entry.name, entry.stat()))
                elif entry.name != "__pycache__":
                    todo.append(entry.path)
    return rows


def _row(name: str, stat: os.stat_result) -> tuple[str, int, int, int, int]:
    return name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
