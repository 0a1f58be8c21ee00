"""The access log: one JSON line a request, appended to a file that all replicas of a machine share."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from autodl_ray.errors import InputError
from autodl_ray.serve.http.calls import Call

__all__ = ["AccessLog"]

_LOOK_EVERY_S = 5.0


class AccessLog:
    """Writes whole lines; a file that was moved away (logrotate) is made anew within seconds.

    Args:
        path: Of the file.

    Raises:
        InputError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._open()
        self._looked = time.monotonic()

    def write(self, call: Call, *, status: int, seconds: float, bytes_out: int) -> None:
        """Write down one request."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": call.id,
            "method": call.method[:20],
            "path": call.path[:200],
            "status": status,
            "ms": round(seconds * 1000, 3),
            "key": call.key,
            "model": call.model,
            "version": call.version,
            "pictures": call.pictures,
            "bytes_in": call.bytes_in,
            "bytes_out": bytes_out,
        }
        os.write(self._current(), json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _current(self) -> int:
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY_S:
            self._looked = now
            if not self._path.exists():
                os.close(self._file)
                self._file = self._open()
        return self._file

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        except OSError as error:
            raise InputError("The access log cannot be opened.", seen=f"{self._path}: {error}") from error
