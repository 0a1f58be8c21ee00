"""API keys: made here, kept as hashes in a file, looked up in constant time, and read again when the file changes."""

from __future__ import annotations

import fcntl
import hmac
import json
import logging
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from autodl_ray.errors import InputError, near_names
from autodl_ray.serve.settings import hash_key

__all__ = ["SCOPES", "ApiKey", "KeyRing", "Scope", "create_key", "read_keys", "revoke_key"]

Scope = Literal["predict", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""``predict``: ask models and what they are; ``admin``: metrics and what changes the service."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LOOK_EVERY_S = 1.0
_log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class ApiKey:
    """One key, as the file has it; the key itself is not kept.

    Attributes:
        name: Shown in the log.
        sha256: Of the key, hex. A fast hash will do: keys are 256 random bits, nobody can try them all.
        scopes: What it may do.
        created: ISO time.
        rate_limit_per_s: Requests a second, instead of the service's limit.
    """

    name: str
    sha256: str
    scopes: tuple[Scope, ...] = ("predict",)
    created: str = ""
    rate_limit_per_s: float | None = None


class KeyRing:
    """The keys that open the service.

    Args:
        file: Made by ``autodl keys create``; read again when it changes. While it is missing it holds no key; when
            it is damaged, the keys read before stay.
        sha256: Hash of a single key with every scope, from ``--api-key-file`` or ``AUTODL_API_KEY``; None: there is
            none.

    Raises:
        InputError: The file is missing or damaged at the start.
    """

    def __init__(self, file: Path | None = None, *, sha256: str | None = None) -> None:
        self.needed = file is not None or sha256 is not None
        self._fixed = () if sha256 is None else (ApiKey("environment", sha256, SCOPES),)
        self._file = file
        self._stamp = None if file is None else _stamp(file)  # before it is read: what changes then is seen later
        self._told = self._stamp
        self._keys: tuple[ApiKey, ...] = () if file is None else read_keys(file)
        self._looked = time.monotonic()

    def find(self, token: str) -> ApiKey | None:
        """Return the key ``token`` is, or None; every key is compared, each in constant time."""
        self._look_again()
        digest = hash_key(token)
        found = None
        for key in (*self._fixed, *self._keys):
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _look_again(self) -> None:
        now = time.monotonic()
        if self._file is None or now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        try:
            self._keys = () if stamp is None else read_keys(self._file)
            self._stamp = stamp
        except InputError as error:  # tried again at the next look, and told once
            if stamp != self._told:
                _log.error(
                    "The file of the API keys was changed and cannot be read; the keys before it stay: %s", error
                )
            self._told = stamp


def read_keys(file: Path) -> tuple[ApiKey, ...]:
    """Read a file of keys.

    Raises:
        InputError: It is missing, not readable, or not such a file.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        keys = tuple(_key(entry) for entry in document["keys"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            "The file of the API keys cannot be read.",
            seen=f"{file}: {error}",
            accepted="a file made by autodl keys create",
            hint=f"autodl keys create NAME --file {file}",
        ) from error
    return keys


def create_key(
    file: Path, name: str, *, scopes: Sequence[Scope] = ("predict",), rate_limit_per_s: float | None = None
) -> str:
    """Make a key, add its hash to ``file`` (made with mode 0600), and return the key: it is shown this once.

    Raises:
        InputError: The name is taken or cannot be one, or the file cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise InputError("This cannot be the name of a key.", seen=name, accepted="letters, digits, '.', '_' and '-'")
    token = f"adl_{secrets.token_urlsafe(32)}"
    created = datetime.now(UTC).isoformat(timespec="seconds")
    with _held(file):
        keys = read_keys(file) if file.exists() else ()
        if any(key.name == name for key in keys):
            raise InputError("There is a key of that name.", seen=name, hint=f"autodl keys revoke {name} --file {file}")
        _write(file, (*keys, ApiKey(name, hash_key(token), tuple(scopes), created, rate_limit_per_s)))
    return token


def revoke_key(file: Path, name: str) -> None:
    """Take a key out of ``file``; running services follow within a second or two.

    Raises:
        InputError: There is no such key, or the file cannot be read or written.
    """
    with _held(file):
        keys = read_keys(file)
        left = tuple(key for key in keys if key.name != name)
        if len(left) == len(keys):
            names = [key.name for key in keys]
            hint = near_names(name, names) or f"there are {', '.join(names) or 'none'}"
            raise InputError("There is no key of that name.", seen=name, hint=hint)
        _write(file, left)


def _key(entry: Any) -> ApiKey:
    key = ApiKey(**{**entry, "scopes": tuple(entry["scopes"])})
    if not re.fullmatch(r"[0-9a-f]{64}", key.sha256) or not set(key.scopes) <= set(SCOPES):
        raise ValueError(f"key {key.name!r} has no sha256, or scopes other than {', '.join(SCOPES)}")
    if key.rate_limit_per_s is not None and not key.rate_limit_per_s > 0:
        raise ValueError(f"key {key.name!r} has a rate limit that is not above 0")
    return key


@contextmanager
def _held(file: Path) -> Iterator[None]:
    """Let nobody else change ``file``: else a key that is revoked here could be written back there."""
    lock = file.with_name(f".{file.name}.lock")
    try:
        held = _locked(lock)
    except OSError as error:
        raise InputError("The file of the API keys cannot be written.", seen=f"{file}: {error}") from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(held)


def _locked(lock: Path) -> int:
    while True:
        held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        if lock.exists() and os.path.samestat(lock.stat(), os.fstat(held)):
            return held
        os.close(held)  # its holder took it away before we got it


def _write(file: Path, keys: Sequence[ApiKey]) -> None:
    """Put the whole file in place at once, for the same readers as before; a new one is the owner's alone."""
    document = {"schema": 1, "keys": [vars(key) for key in keys]}
    hidden = None
    try:
        before = file.stat() if file.exists() else None
        number, hidden = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # mode 0600
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(document, indent=2) + "\n")
            if before is not None:  # a service of another user that may read it shall not lose sight of it
                os.fchown(number, before.st_uid, before.st_gid)
                os.fchmod(number, stat.S_IMODE(before.st_mode))
            stream.flush()
            os.fsync(number)
        os.replace(hidden, file)
    except OSError as error:
        if hidden is not None:
            Path(hidden).unlink(missing_ok=True)
        raise InputError("The file of the API keys cannot be written.", seen=f"{file}: {error}") from error


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
