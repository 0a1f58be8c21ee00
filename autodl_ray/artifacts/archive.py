"""An artifact as one zip file: written so that equal content gives equal bytes, and opened without trusting it."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from autodl_ray.artifacts.manifest import MANIFEST, Manifest, is_safe_name, read_manifest
from autodl_ray.errors import BundleError

__all__ = ["MAX_BYTES", "MAX_FILES", "is_archive", "unpacked", "write_archive"]

MAX_BYTES = 8 * 2**30
"""Most that an archive may hold, unpacked."""
MAX_FILES = 1000

_MAX_MANIFEST = 16 * 2**20
_DATE = (1980, 1, 1, 0, 0, 0)
_AGAIN = "copy it again, or make it again with `autodl pack`"


def is_archive(path: str | Path) -> bool:
    """Whether the path is a file that ends like a zip."""
    return Path(path).suffix.lower() == ".zip" and Path(path).is_file()


def write_archive(folder: Path, target: Path) -> None:
    """Write every file of a folder into a zip, which appears whole or not at all; equal files give equal bytes.

    Args:
        folder: An artifact.
        target: The zip; one that is there is replaced.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), date_time=_DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (0o755 if os.access(file, os.X_OK) else 0o644) << 16
                with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as sink:
                    shutil.copyfileobj(source, sink, 2**20)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def unpacked(path: str | Path) -> Path:
    """Unpack a zipped artifact into a private folder of this user and return it; a second call finds it there.

    Only files that the manifest names are written, each checked against its hash while it is read, so that neither
    names nor sizes in the zip have to be trusted.

    Raises:
        BundleError: It is no zip of an artifact, is damaged, too large, or holds what does not belong there.
    """
    source = Path(path)
    try:
        with source.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()[:32]
    except OSError as error:
        raise BundleError("The archive cannot be read.", seen=f"{source}: {error.strerror}") from error
    target = _private_folder() / digest
    if (target / MANIFEST).is_file():
        if _is_whole(target):
            return target
        shutil.rmtree(target, ignore_errors=True)  # a cleaner of temporary folders took some of its files
    staging = target.with_name(f".{digest}.{uuid.uuid4().hex[:8]}")
    staging.mkdir(mode=0o700)
    try:
        with zipfile.ZipFile(source) as archive:
            _extract(archive, staging, source)
        try:
            staging.rename(target)
        except OSError:  # another process was faster
            if not (target / MANIFEST).is_file():
                raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        # zipfile raises NotImplementedError for versions and flags of the format that it does not read
        raise BundleError("The archive is damaged.", seen=f"{source}: {error}", hint=_AGAIN) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _is_whole(folder: Path) -> bool:
    try:
        manifest = read_manifest((folder / MANIFEST).read_text(encoding="utf-8"), str(folder))
        return all((folder / name).stat().st_size == record.bytes for name, record in manifest.files.items())
    except (OSError, UnicodeDecodeError, BundleError):
        return False


def _extract(archive: zipfile.ZipFile, folder: Path, source: Path) -> None:
    entries = _entries(archive, source)
    if MANIFEST not in entries:
        raise BundleError("There is no whole artifact in this archive.", seen=f"{source}: no {MANIFEST}", hint=_AGAIN)
    if entries[MANIFEST].file_size > _MAX_MANIFEST:
        raise _refused(source, f"a {MANIFEST} of {entries[MANIFEST].file_size:,} bytes")
    raw = archive.read(entries[MANIFEST])
    manifest = read_manifest(raw.decode("utf-8"), str(source))
    _compare(manifest, entries, source)
    for name, record in manifest.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entries[name]) as stream, file.open("xb") as sink:
            seen = _copy(stream, sink, record.bytes)
        if seen != record.sha256:
            raise BundleError(
                "A file of the archive is truncated or was changed.",
                seen=f"{source}: {name}",
                accepted=f"{record.bytes} bytes with sha256 {record.sha256[:12]}…",
                hint=_AGAIN,
            )
        if entries[name].external_attr >> 16 & stat.S_IXUSR:
            file.chmod(0o700)
    (folder / MANIFEST).write_bytes(raw)


def _entries(archive: zipfile.ZipFile, source: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the files of a zip by name, after a look at what the zip says of them."""
    infos = [i for i in archive.infolist() if not i.is_dir()]
    if len(infos) > MAX_FILES:
        raise _refused(source, f"{len(infos)} files", accepted=f"at most {MAX_FILES}")
    total = sum(i.file_size for i in infos)
    if total > MAX_BYTES:
        raise _refused(source, f"{total:,} bytes unpacked", accepted=f"at most {MAX_BYTES:,}")
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or info.flag_bits & 1:
            raise _refused(source, f"{info.filename}: a link, a device or encrypted", accepted="plain files")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(source, f"{info.filename}: compression {info.compress_type}", accepted="deflated or stored")
        if not is_safe_name(info.filename):
            raise _refused(source, repr(info.filename), accepted="names of files inside the bundle")
    found = {i.filename: i for i in infos}
    if len(found) != len(infos):
        raise _refused(source, "two files of one name")
    return found


def _compare(manifest: Manifest, entries: Mapping[str, zipfile.ZipInfo], source: Path) -> None:
    missing = [n for n in manifest.files if n not in entries]
    surplus = [n for n in entries if n not in manifest.files and n != MANIFEST]
    if missing:
        raise BundleError("A file of the archive is missing.", seen=f"{source}: {missing[0]}", hint=_AGAIN)
    if surplus:
        raise _refused(source, f"{surplus[0]}, which the manifest does not name")
    for name, record in manifest.files.items():
        if entries[name].file_size != record.bytes:
            raise BundleError(
                "A file of the archive is truncated or was changed.",
                seen=f"{source}: {name}: {entries[name].file_size} bytes",
                accepted=f"{record.bytes} bytes",
                hint=_AGAIN,
            )


def _copy(stream: IO[bytes], sink: IO[bytes], limit: int) -> str:
    """Copy at most ``limit`` bytes and return their sha256; more of them make it the hash of something else."""
    digest, left = hashlib.sha256(), limit + 1
    while left and (block := stream.read(min(left, 2**20))):
        digest.update(block)
        sink.write(block)
        left -= len(block)
    return digest.hexdigest()


def _refused(source: Path, seen: str, accepted: str | None = None) -> BundleError:
    return BundleError(
        "The archive holds what no bundle holds; nothing of it was kept.",
        seen=f"{source}: {seen}",
        accepted=accepted,
        hint="take one that `autodl pack` wrote",
    )


def _private_folder() -> Path:
    """A folder that only this user can write; another one, for this process alone, where that name is taken."""
    folder = Path(tempfile.gettempdir()) / f"autodl-bundles-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
        if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o022:
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="autodl-bundles-"))
