"""The access log: one JSON line a request, appended to a file that all replicas of a machine share."""

from __future__ import annotations

import json
import logging
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from autodl_ray.errors import InputError
from autodl_ray.serve.http.calls import Call

__all__ = ["AccessLog"]

_LOOK_EVERY_S = 5.0
_log = logging.getLogger("ray.serve")


class AccessLog:
    """Writes whole lines; a file that was moved away or replaced (logrotate) is followed by the new one within seconds.

    Args:
        path: Of the file.

    Raises:
        InputError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._open()
        self._looked = time.monotonic()
        self._is_well = True

    def write(self, call: Call, *, status: int, seconds: float, bytes_out: int) -> None:
        """Write down one request; where that is not possible it is told once, and nothing is raised."""
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
        try:
            os.write(self._current(), json.dumps(line, separators=(",", ":")).encode() + b"\n")
            self._is_well = True
        except (OSError, InputError) as error:
            if self._is_well:
                _log.error("requests are not written down in the access log: %s", error)
            self._is_well = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _current(self) -> int:
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY_S:
            if not self._is_there():
                new = self._open()
                os.close(self._file)
                self._file = new
            self._looked = now
        return self._file

    def _is_there(self) -> bool:
        """Whether the path still leads to the open file: another replica may have made a new one."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file))
        except OSError:
            return False

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        except OSError as error:
            raise InputError("The access log cannot be opened.", seen=f"{self._path}: {error}") from error
