"""Unpacking zip and tar archives of strangers: nothing leaves the target, and a bomb is stopped while it unpacks."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple, Never, Self, cast

from autodl_ray.errors import DatasetError

__all__ = ["ARCHIVE_SUFFIXES", "Limits", "StrictTarInfo", "Unpacked", "decompress", "unpack"]

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_CHUNK = 2**20
_HEADER_ERRORS = (
    tarfile.InvalidHeaderError,  # type: ignore[attr-defined]
    tarfile.TruncatedHeaderError,  # type: ignore[attr-defined]
    tarfile.EmptyHeaderError,  # type: ignore[attr-defined]
)
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    NotImplementedError,  # a way of compressing that is not known
    RuntimeError,  # a password
    OverflowError,
)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Attributes:
        total_bytes: Of all files together, unpacked.
        members: How many files and folders.
        ratio: Unpacked bytes for each byte of the archive.
        free_bytes: The ratio is not looked at up to so many unpacked bytes.
        name_bytes: Of a path in the archive.
    """

    total_bytes: int = 500 * 2**30
    members: int = 20_000_000
    ratio: float = 200.0
    free_bytes: int = 64 * 2**20
    name_bytes: int = 1024


@dataclass
class Unpacked:
    """What came out of an archive.

    Attributes:
        files: How many files.
        bytes: Of them together.
        passed_over: What was left out, counted.
    """

    files: int = 0
    bytes: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)


class StrictTarInfo(tarfile.TarInfo):
    """A header of a tar that must be whole: ``tarfile`` takes a broken one for the end, and what follows is lost."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        """Read the next header.

        Raises:
            DatasetError: It is damaged, or the tar stops without its end.
        """
        start = tarfile.offset
        try:
            return super().fromtarfile(tarfile)
        except _HEADER_ERRORS as error:
            if start == 0:  # no tar at all, which the caller says
                raise
            raise DatasetError("A tar is damaged, or ends too early.", seen=f"at byte {start:,}: {error}") from error


class _Member(NamedTuple):
    """A member of an archive.

    Attributes:
        name: As the archive has it.
        kind: ``file``, ``folder``, ``link`` or what else it is.
        open: Opens a file.
        target: What a link points at.
        hard: Whether a link names another member instead of a path.
    """

    name: str
    kind: str
    open: Callable[[], IO[bytes] | None]
    target: str = ""
    hard: bool = False


def unpack(archive: Path, target: Path, *, limits: Limits | None = None) -> Unpacked:
    """Unpack an archive into a folder.

    Names that are absolute or contain ``..``, links that lead out, and devices are refused. A link to a file that was
    unpacked before becomes that file; other links are counted and left out. Modes, owners and times are not taken over.

    Args:
        archive: A zip, or a tar, also compressed with gzip, bzip2 or xz; what it is says its content.
        target: An existing folder.
        limits: Caps; they are looked at while bytes come out, not in the headers, which may lie.

    Raises:
        DatasetError: The archive is damaged, hostile, has a password or is over a limit. What was unpacked so far
            is in the folder.
        OSError: The target cannot be written.
    """
    done = _Unpacking(archive, target.resolve(), limits or Limits())
    with _readable(archive):
        opened = _zip_members if zipfile.is_zipfile(archive) and not _is_tar(archive) else _tar_members
        for member in opened(archive):
            done.take(member)
    return done.result


def decompress(archive: Path, target: Path, *, limits: Limits | None = None) -> None:
    """Write the plain tar of a compressed one.

    Args:
        archive: A ``.tar.gz``, ``.tar.bz2`` or ``.tar.xz``.
        target: The file to write.
        limits: Caps on size and ratio.

    Raises:
        DatasetError: The archive is damaged, or over a limit.
        OSError: The target cannot be written.
    """
    done = _Unpacking(archive, target.parent, limits or Limits())
    with _readable(archive):
        with archive.open("rb") as stream:
            head = stream.read(6)
        openers = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
        opener = next((one for magic, one in openers if head.startswith(magic)), None)
        if opener is None:
            raise DatasetError("The archive is not compressed with gzip, bzip2 or xz.", seen=archive.name)
        with opener(archive, "rb") as packed:
            done.copy(cast(IO[bytes], packed), target, archive.name)


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    except DatasetError:
        raise
    except _BROKEN as error:
        raise DatasetError("The archive is damaged, or has a password.", seen=f"{archive.name}: {error}") from error
    except OSError as error:
        if error.errno is not None:  # of the disk; gzip and bzip2 raise it without a number for damaged bytes
            raise
        raise DatasetError("The archive is damaged.", seen=f"{archive.name}: {error}") from error


def _is_tar(archive: Path) -> bool:
    """A tar of zips ends like a zip; its beginning says what it is."""
    with archive.open("rb") as stream:
        return stream.read(4) not in (b"PK\x03\x04", b"PK\x05\x06") and tarfile.is_tarfile(archive)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            mode = info.external_attr >> 16
            kind = "folder" if info.is_dir() else "file"
            target = ""
            if stat.S_ISLNK(mode):
                kind = "link"
                with packed.open(info) as stream:
                    target = stream.read(4096).decode("utf-8", "replace")
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "device"
            yield _Member(info.filename, kind, lambda info=info: packed.open(info), target)  # type: ignore[misc]


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive, "r|*", tarinfo=StrictTarInfo) as packed:
        while (info := packed.next()) is not None:
            packed.members.clear()  # type: ignore[attr-defined]  # it would hold every header in memory
            kind = "file" if info.isreg() else "folder" if info.isdir() else "link" if info.issym() else "device"
            if info.islnk():
                yield _Member(info.name, "link", lambda: None, info.linkname, hard=True)
                continue
            yield _Member(info.name, kind, lambda info=info: packed.extractfile(info), info.linkname)  # type: ignore[misc]


class _Unpacking:
    """Takes one member after the other, within the limits."""

    def __init__(self, archive: Path, target: Path, limits: Limits) -> None:
        self.result = Unpacked()
        self._archive, self._target, self._limits = archive, target, limits
        self._size = max(1, archive.stat().st_size)
        self._members = 0
        self._folders: set[str] = set()

    def take(self, member: _Member) -> None:
        self._members += 1
        if self._members > self._limits.members:
            self._refuse("has too many members", f"more than {self._limits.members:,}")
        path = self._path(member.name)
        if path.split("/", 1)[0] == "__MACOSX":
            self.result.passed_over["resource forks of macOS"] += 1
        elif member.kind == "folder":
            self._make_folder(path)
        elif member.kind == "link":
            self._link(path, member)
        elif member.kind == "file":
            self._make_folder(posixpath.dirname(path))
            stream = member.open()
            if stream is None:
                self._refuse("is damaged", member.name)
            with stream:
                self.copy(stream, self._target / path, path)
        else:
            self._refuse("holds a device or a pipe", member.name)

    def _path(self, name: str) -> str:
        """Return the checked path of a member below the target; empty for the target itself."""
        plain = name.replace("\\", "/")
        parts = [part for part in plain.split("/") if part not in ("", ".")]
        if plain.startswith("/") or ".." in parts or (parts and parts[0][1:2] == ":"):
            self._refuse("has a member that leads out of the target folder", name)
        path = "/".join(parts)
        if "\0" in path or len(path.encode("utf-8", "surrogateescape")) > self._limits.name_bytes:
            self._refuse("has a member with a name that is not accepted", f"{path[:80]!a}")
        return path

    def _make_folder(self, path: str) -> None:
        if path and path not in self._folders:
            try:
                (self._target / path).mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                self._refuse("uses a name for a file and for a folder", path)
            self._folders.add(path)

    def _link(self, path: str, member: _Member) -> None:
        start = "" if member.hard else posixpath.dirname(path)
        target = posixpath.normpath(posixpath.join(start, member.target.replace("\\", "/")))
        if target.startswith(("/", "..")):
            self._refuse("has a link that leads out of the target folder", f"{member.name} -> {member.target}")
        source = self._target / target
        # Only plain files are made here, so what lies there is no link either.
        if source.is_file() and not (self._target / path).exists():
            self._make_folder(posixpath.dirname(path))
            os.link(source, self._target / path)
            self.result.files += 1
        else:
            self.result.passed_over["links to folders or to nothing"] += 1

    def copy(self, stream: IO[bytes], path: Path, name: str) -> None:
        """Write the bytes of a member, and stop as soon as a limit is passed."""
        try:
            out = path.open("xb")
        except FileExistsError:
            self._refuse("has two members of one name", name)
        except (IsADirectoryError, NotADirectoryError):
            self._refuse("uses a name for a file and for a folder", name)
        with out:
            while chunk := stream.read(_CHUNK):
                self.result.bytes += len(chunk)
                self._check_size(name)
                out.write(chunk)
        self.result.files += 1

    def _check_size(self, name: str) -> None:
        total, limits = self.result.bytes, self._limits
        if total > limits.total_bytes:
            self._refuse("is too large when unpacked", f"over {limits.total_bytes:,} bytes, at {name}")
        if total > limits.free_bytes and total > limits.ratio * self._size:
            self._refuse(
                "unpacks to far more than it holds",
                f"{total:,} bytes from {self._size:,} so far, at {name}; at most {limits.ratio:g} for each byte",
            )

    def _refuse(self, what: str, seen: str) -> Never:
        raise DatasetError(
            f"The archive {what}.",
            seen=f"{self._archive.name}: {seen}",
            accepted="plain files and folders that stay below the target, of a size that fits the archive",
            hint="unpack it yourself if you trust it, and give the folder",
        )
