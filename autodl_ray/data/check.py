"""Hashing and decoding every picture once, and remembering what was found as long as the file stays the same."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from autodl_ray.artifacts import Store, write_atomic
from autodl_ray.data.imagefolder import PictureFile
from autodl_ray.errors import DatasetError, RunInterrupted
from autodl_ray.images import check_image
from autodl_ray.runtime import Context

__all__ = ["PictureFacts", "check_files"]

_CACHE_SCHEMA = 1
_RACY_NS = 100_000_000
_CHUNK = 64


@dataclass(frozen=True)
class PictureFacts:
    """What was found when a file was read.

    Attributes:
        sha256: Of its bytes; empty when they could not be read.
        width: Of the upright picture, in pixels; 0 when it could not be decoded.
        height: Of the upright picture, in pixels; 0 when it could not be decoded.
        bytes: Size of the file.
        problem: Why it is no usable picture; empty when it is one.
    """

    sha256: str
    width: int
    height: int
    bytes: int
    problem: str = ""


def check_files(root: Path, files: Sequence[PictureFile], *, context: Context) -> list[PictureFacts]:
    """Return the facts of each file, in order; unchanged files are not read again.

    A file is unchanged while its relative path, size, times (ns) and inode are those of the last check of this
    folder into this store. A file that was written less than 0.1 s before it was read is not remembered: it could
    change again without a trace.

    Raises:
        RunInterrupted: The user asked to stop; what was checked is remembered.
    """
    memory = _Memory.load(context.store, root)
    facts = [memory.get(file) for file in files]
    todo = [i for i, fact in enumerate(facts) if fact is None]
    with context.progress.stage("check", len(files)) as bar:
        try:
            for done, (i, fact, lasting) in enumerate(_read_all(root, files, todo), start=len(files) - len(todo) + 1):
                facts[i] = fact
                if lasting:
                    memory.put(files[i], fact)
                if done % _CHUNK == 0:
                    bar.update(done, len(files))
                    _stop_if_asked(context)
        finally:
            if todo or len(memory.rows) > len(files):
                memory.save(files)
        bar.update(len(files), len(files))
    return [fact for fact in facts if fact is not None]


def _stop_if_asked(context: Context) -> None:
    if context.stop.is_set():
        raise RunInterrupted("Stopped while the pictures were checked.", hint="run the same line again to go on")


def _read_all(
    root: Path, files: Sequence[PictureFile], todo: Sequence[int]
) -> Iterator[tuple[int, PictureFacts, bool]]:
    """Read files in threads (hashing and decoding leave the GIL); yield (index, facts, may be remembered)."""

    def read_chunk(chunk: Sequence[int]) -> list[tuple[int, PictureFacts, bool]]:
        rows = []
        for i in chunk:
            settled = time.time_ns() - max(files[i].stamp[1:3]) > _RACY_NS
            rows.append((i, read_facts(root / files[i].path), settled))
        return rows

    if not todo:
        return
    chunks = [todo[start : start + 16] for start in range(0, len(todo), 16)]
    pool = ThreadPoolExecutor(_num_threads(), thread_name_prefix="check")
    try:
        for rows in pool.map(read_chunk, chunks):
            yield from rows
    finally:
        pool.shutdown(cancel_futures=True)


def _num_threads() -> int:
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def read_facts(path: Path) -> PictureFacts:
    """Hash and decode one file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return PictureFacts("", 0, 0, 0, f"The file cannot be read: {error.strerror}.")
    digest = hashlib.sha256(data).hexdigest()
    try:
        width, height = check_image(data)
    except DatasetError as error:
        return PictureFacts(digest, 0, 0, len(data), error.what)
    return PictureFacts(digest, width, height, len(data))


class _Memory:
    """The facts of earlier checks of one folder, in one JSON file of the store."""

    def __init__(self, path: Path | None, rows: dict[str, list[object]]) -> None:
        self.path = path
        self.rows = rows

    @classmethod
    def load(cls, store: Store, root: Path) -> _Memory:
        if not store.is_local:
            return cls(None, {})
        name = hashlib.sha256(str(root).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        path = store.folder("cache") / f"files-{name}.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, document["rows"] if document["schema"] == cls._schema() else {})
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path, {})  # not there yet, or damaged: everything is read again

    @staticmethod
    def _schema() -> list[object]:
        import PIL

        return [_CACHE_SCHEMA, PIL.__version__]

    def get(self, file: PictureFile) -> PictureFacts | None:
        row = self.rows.get(file.path)
        if row is None or row[:4] != list(file.stamp):
            return None
        return PictureFacts(*row[4:])  # type: ignore[arg-type]

    def put(self, file: PictureFile, facts: PictureFacts) -> None:
        self.rows[file.path] = [*file.stamp, facts.sha256, facts.width, facts.height, facts.bytes, facts.problem]

    def save(self, files: Sequence[PictureFile]) -> None:
        if self.path is None:
            return
        there = {file.path for file in files}
        rows = {path: row for path, row in sorted(self.rows.items()) if path in there}
        document = {"schema": self._schema(), "rows": rows}
        write_atomic(self.path, json.dumps(document, separators=(",", ":"), ensure_ascii=False))
