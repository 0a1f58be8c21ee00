"""What Ray leaves on the disk: one private folder a driver in the store's volume, and the access token."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path

import psutil

__all__ = ["ensure_token", "home_of_ray", "ray_folder", "remove_ray_folder", "remove_stale_folders", "tail_of_logs"]

# A Unix socket's path has at most 107 bytes; Ray appends "/session_<date>_<time>_<pid>/sockets/plasma_store".
_LONGEST_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store") - 2


def home_of_ray(base: Path) -> Path:
    """Return the folder below the store where this driver's Ray keeps its files, or would."""
    return base / ".ray" / f"{os.getpid()}-{_host()}"


def ray_folder(base: Path | None) -> Path:
    """Make the private (0700) folder of this driver's Ray and return the path to give Ray.

    Args:
        base: Folder on whose volume Ray's logs and spilled objects lie (the store); None: the system's
            temporary folder.

    Returns:
        A path short enough for Ray's Unix sockets: the folder itself, or a short link to it.
    """
    if base is None:
        return Path(tempfile.mkdtemp(prefix=_prefix(f"{os.getpid()}-{_host()}")))
    folder = home_of_ray(base)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    if len(os.fsencode(folder)) <= _LONGEST_FOLDER:
        return folder
    link = Path(tempfile.mkdtemp(prefix=_prefix(folder.name))) / "r"
    link.symlink_to(folder, target_is_directory=True)
    return link


def remove_ray_folder(path: Path) -> None:
    """Delete what :func:`ray_folder` made."""
    target = path.resolve()
    if path.is_symlink():
        shutil.rmtree(path.parent, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    with contextlib.suppress(OSError):  # the parent ".ray" goes with the last driver's folder
        if target.parent.name == ".ray":
            target.parent.rmdir()


def remove_stale_folders(base: Path | None) -> None:
    """Delete the folders of drivers of this machine that were killed and could not clean up."""
    places = [(Path(tempfile.gettempdir()), _prefix(""))]
    if base is not None:
        places.append((base / ".ray", ""))
    for place, prefix in places:
        for folder in place.glob(f"{prefix}*-{_host()}*"):
            pid = folder.name.removeprefix(prefix).split("-", 1)[0]
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)


def ensure_token(fallback: Path) -> None:
    """See to it that Ray finds an access token that only this user can read (Ray itself writes it 0644).

    Args:
        fallback: Folder for the token where the home folder cannot be written; named to Ray by
            ``RAY_AUTH_TOKEN_PATH``.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = Path.home() / ".ray" / "auth_token"
    try:
        _write_token(path)
    except OSError:
        path = fallback / "auth_token"
        _write_token(path)
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)


def tail_of_logs(folder: Path, lines: int = 6) -> str:
    """Return the last lines of the raylet's or GCS server's error output, or "" when there are none."""
    for name in ("raylet.err", "raylet.out", "gcs_server.err", "gcs_server.out"):
        for log in sorted(folder.glob(f"session_*/logs/{name}"), reverse=True):
            text = log.read_text(encoding="utf-8", errors="replace").strip()
            if text:
                return "\n".join(f"    {name}: {row[:200]}" for row in text.splitlines()[-lines:])
    return ""


def _write_token(path: Path) -> None:
    if path.exists() and path.stat().st_size > 0:
        if path.stat().st_mode & 0o077 and path.stat().st_uid == os.getuid():
            path.chmod(0o600)
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secrets.token_hex(32))
    try:
        with contextlib.suppress(FileExistsError):  # another driver was faster: its token is as good
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _prefix(name: str) -> str:
    return f"adl{os.getuid()}-{name}"


def _host() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=3).hexdigest()
