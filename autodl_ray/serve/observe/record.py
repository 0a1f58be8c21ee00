"""Keeps some of the requests with their answers, as a folder of pictures that the next training can begin from."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

import numpy as np
from PIL import Image

from autodl_ray.errors import InputError
from autodl_ray.images import ImageArray
from autodl_ray.serve.answers import Probabilities, ServedModel
from autodl_ray.serve.first_answer import FIRST_ID
from autodl_ray.serve.metrics import Metrics
from autodl_ray.tasks.classification import top_k

__all__ = ["ANSWERS", "Recorder", "check_folder", "is_sampled"]

ANSWERS = "answers.jsonl"
"""One JSON line an answer: time, request, model, version, predictions, file."""

_TOP_K = 5
_QUEUE = 64
_QUEUE_BYTES = 64 * 2**20
_USED = ".used"  # bytes so far; hidden files are no part of a data set
_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PN": ".png", b"GIF": ".gif", b"RIF": ".webp", b"II*": ".tif",
             b"MM\x00": ".tif"}  # fmt: skip
_log = logging.getLogger("ray.serve")


@dataclass(frozen=True, eq=False)
class _Answered:
    time: datetime
    request: str
    model: ServedModel
    picture: bytes | ImageArray
    probabilities: Probabilities

    @property
    def bytes(self) -> int:
        return len(self.picture) if isinstance(self.picture, bytes) else self.picture.nbytes


def is_sampled(request: str, share: float) -> bool:
    """Whether a request is among the share that is kept: by a hash of its id, in every replica alike."""
    digest = hashlib.blake2b(request.encode("utf-8", "replace"), digest_size=8, person=b"record").digest()
    return int.from_bytes(digest, "big") < share * 2**64


def check_folder(folder: Path) -> None:
    """Make the folder, for its owner alone, and see that files can be written there.

    Raises:
        InputError: They cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("not writable")
    except OSError as error:
        raise InputError("The folder for recorded requests cannot be written.", seen=f"{folder}: {error}") from error


class Recorder:
    """Writes pictures and answers in one thread of its own; several replicas may write into one folder.

    A picture's bytes are kept as they came, at ``FOLDER/MODEL/CLASS/SHA256.jpg``, under the class that was answered
    first; pixels without a file become a PNG. Nothing else of a request is kept but its id: no header, key or address.

    Args:
        folder: Of the pictures.
        share: Of the requests that are kept.
        max_bytes: Of all files; then nothing more is kept.
        metrics: Where is counted what was written and what was not.

    Raises:
        InputError: The folder cannot be written.
    """

    def __init__(self, folder: Path, *, share: float, max_bytes: int, metrics: Metrics) -> None:
        check_folder(folder)
        self._folder, self._share, self._max, self._metrics = folder, share, max_bytes, metrics
        self._queue: Queue[_Answered | None] = Queue(_QUEUE)
        self._waiting = 0  # bytes
        self._lock = threading.Lock()
        self._full = False
        with self._used() as used:
            used.write(_size(folder))
        self._thread = threading.Thread(target=self._loop, name="record", daemon=True)
        self._thread.start()

    def offer(
        self, request: str, model: ServedModel, picture: bytes | ImageArray, probabilities: Probabilities
    ) -> None:
        """Keep an answer if its request is sampled; never waits: what cannot be written in time is left out.

        Args:
            request: Its id.
            model: Who answered.
            picture: File, or pixels (H, W, 3) uint8.
            probabilities: (C,) of it.
        """
        if not is_sampled(request, self._share) or request == FIRST_ID:
            return
        if self._full:
            self._count("over the cap", model)
            return
        answered = _Answered(datetime.now(UTC), request, model, picture, probabilities)
        with self._lock:
            fits = self._waiting + answered.bytes <= _QUEUE_BYTES
            self._waiting += answered.bytes if fits else 0
        try:
            if not fits:
                raise Full
            self._queue.put_nowait(answered)
        except Full:
            self._release(answered if fits else None)
            self._count("too busy", model)

    def close(self, *, timeout_s: float = 2.0) -> None:
        """Write what waits, and end the thread."""
        try:
            self._queue.put(None, timeout=timeout_s)
        except Full:
            return
        self._thread.join(timeout_s)

    def flush(self) -> None:
        """Wait until everything that was offered is written."""
        self._queue.join()

    def _loop(self) -> None:
        while True:
            try:
                answered = self._queue.get(timeout=60)
            except Empty:
                continue
            try:
                if answered is None:
                    return
                self._count(self._write(answered), answered.model)
            except (OSError, ValueError) as error:
                self._count("failed", answered.model)  # type: ignore[union-attr]
                _log.warning("a request could not be recorded: %s", error)
            finally:
                self._release(answered)
                self._queue.task_done()

    def _write(self, answered: _Answered) -> str:
        """Write one; returns the outcome."""
        data = answered.picture if isinstance(answered.picture, bytes) else _png(answered.picture)
        model, scores = answered.model, answered.probabilities
        folder = self._folder / _as_name(model.name)
        name = hashlib.sha256(data).hexdigest()[:24] + _SUFFIXES.get(data[:3], ".bmp" if data[:2] == b"BM" else ".jpg")
        with self._used() as used:
            there = next(folder.glob(f"*/{name}"), None)
            path = there or folder / _as_name(model.classes[int(scores.argmax())]) / name
            line = _line(answered, path.relative_to(folder).as_posix())
            size = used.read() + len(line) + (0 if there else len(data))
            if size > self._max:
                self._stop()
                return "over the cap"
            if there is None:
                for place in (folder, path.parent):  # mkdir's mode is that of the last folder alone
                    place.mkdir(exist_ok=True, mode=0o700)
                _put(path, data)
            _append(folder / ANSWERS, line)
            used.write(size)
        return "written"

    def _stop(self) -> None:
        if not self._full:
            self._full = True
            _log.warning("recording stopped: %s holds its %.0f MB", self._folder, self._max / 1e6)

    def _release(self, answered: _Answered | None) -> None:
        if answered is not None:
            with self._lock:
                self._waiting -= answered.bytes

    def _count(self, outcome: str, model: ServedModel) -> None:
        self._metrics.count("autodl_recorded_total", (outcome, model.name, model.version))

    @contextmanager
    def _used(self) -> Iterator[_Used]:
        """Hold the folder, among all replicas, and its size."""
        file = os.open(self._folder / _USED, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield _Used(file)
        finally:
            os.close(file)


@dataclass(frozen=True)
class _Used:
    file: int

    def read(self) -> int:
        return int(os.pread(self.file, 32, 0) or b"0")

    def write(self, size: int) -> None:
        os.pwrite(self.file, f"{size:<31d}\n".encode(), 0)


def _line(answered: _Answered, file: str) -> bytes:
    row: dict[str, Any] = {
        "time": answered.time.isoformat(timespec="milliseconds"),
        "request": answered.request,
        "model": answered.model.name,
        "version": answered.model.version,
        "predictions": top_k(answered.probabilities, answered.model.classes, _TOP_K),
        "file": file,
    }
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def _put(path: Path, data: bytes) -> None:
    hidden = path.with_name(f".{path.name}")
    file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(data)
    hidden.replace(path)


def _append(path: Path, line: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def _png(pixels: ImageArray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _as_name(text: str) -> str:
    """Return a name as that of a folder: what has a meaning in paths is written as in URLs, nothing else."""
    plain = "".join(f"%{ord(c):02X}" if c in '/\\%:*?"<>|' or ord(c) < 32 else c for c in text)
    return f"%2E{plain[1:]}" if plain.startswith(".") else plain


def _size(folder: Path) -> int:
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names if name != _USED)
    return sum(file.lstat().st_size for file in files)
