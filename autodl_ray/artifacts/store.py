"""Where artifacts are kept: files first, manifest last, so that what is there is whole."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from autodl_ray.artifacts.manifest import MANIFEST, Kind, Manifest, file_record, read_manifest
from autodl_ray.errors import BundleError, StoreError

__all__ = ["Artifact", "ArtifactWriter", "Store", "open_artifact", "write_atomic"]


@dataclass(frozen=True)
class Artifact:
    """A whole artifact on this machine: its folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """The id of the content."""
        return self.manifest.id

    @property
    def meta(self) -> dict[str, Any]:
        """The small facts recorded with it."""
        return self.manifest.meta

    def file(self, name: str) -> Path:
        """Return the path of one of its files.

        Raises:
            BundleError: The manifest names no such file, or it is gone.
        """
        path = self.path / name
        if name not in self.manifest.files or not path.is_file():
            raise BundleError("The artifact has no such file.", seen=f"{self.path}/{name}")
        return path

    def copy_files(self, folder: Path, *, without: Collection[str] = ()) -> None:
        """Copy its files into another folder, those in ``without`` excepted."""
        for name in self.manifest.files:
            if name not in without:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.path / name, target)

    def verify(self) -> None:
        """Hash every file again.

        Raises:
            BundleError: A file (or the manifest) is missing, truncated or changed; the first one is named.
        """
        if self.manifest.seal and self.manifest.seal != self.manifest.expected_seal():
            raise BundleError(
                f"The {MANIFEST} of the artifact was changed.", seen=str(self.path), hint="copy or make it again"
            )
        for name, record in self.manifest.files.items():
            path = self.path / name
            if not path.is_file():
                raise BundleError("A file of the artifact is missing.", seen=str(path), hint="copy or make it again")
            size = path.stat().st_size
            if size != record.bytes or file_record(path).sha256 != record.sha256:
                raise BundleError(
                    "A file of the artifact is truncated or was changed.",
                    seen=f"{path}: {size} bytes",
                    accepted=f"{record.bytes} bytes with sha256 {record.sha256[:12]}…",
                    hint="copy or make it again",
                )


@dataclass
class ArtifactWriter:
    """An artifact in the making: write files below ``path``, put facts into ``meta``."""

    path: Path
    meta: dict[str, Any]


def open_artifact(path: str | Path, *, verify: bool = False) -> Artifact:
    """Open the artifact in a local folder.

    Args:
        path: The folder that holds ``manifest.json``.
        verify: Hash every file and compare.

    Raises:
        BundleError: There is no manifest, it is damaged or newer, or (``verify``) a file differs.
    """
    folder = Path(path)
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            "There is no whole artifact here.",
            seen=str(folder),
            accepted=f"a folder with a {MANIFEST}",
            hint="give the folder that a finished run printed, e.g. runs/NAME/bundle",
        ) from error
    artifact = Artifact(folder, read_manifest(text, str(folder)))
    if verify:
        artifact.verify()
    return artifact


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Write a file so that a reader (or a kill) sees the old content or the new, never half of it.

    ``durable`` also forces it to the disk, which only a power cut needs and which takes milliseconds.
    """
    raw = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as stream:
            stream.write(raw)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Store:
    """A folder of artifacts on a ``pyarrow.fs`` file system.

    Keys are relative paths such as ``datasets/3f…`` or ``my-run/bundle``. On a local file system the artifact
    is used where it lies; from another one it is copied into a cache first.

    Args:
        uri: A local path, or a URI that ``pyarrow.fs`` understands.
    """

    def __init__(self, uri: str | Path) -> None:
        text = str(uri)
        if "://" in text:
            try:
                self.fs, self.root = pafs.FileSystem.from_uri(text)
            except Exception as error:  # pyarrow raises ArrowInvalid, OSError, ValueError by scheme
                raise StoreError("The store's address is not understood.", seen=text) from error
        else:
            self.fs, self.root = pafs.LocalFileSystem(), str(Path(text).expanduser().resolve())
        self.is_local = isinstance(self.fs, pafs.LocalFileSystem)

    def __repr__(self) -> str:
        return f"Store({self.root!r})"

    def check_writable(self) -> None:
        """Write and delete a small file.

        Raises:
            StoreError: It could not be written.
        """
        name = f"{self.root}/.write-test-{uuid.uuid4().hex[:8]}"
        try:
            self.fs.create_dir(self.root, recursive=True)
            with self.fs.open_output_stream(name) as stream:
                stream.write(b"ok")
            self.fs.delete_file(name)
        except OSError as error:
            with contextlib.suppress(OSError):  # an empty file may be there: a full disk refuses its content only
                self.fs.delete_file(name)
            raise StoreError(
                "The store cannot be written.",
                seen=f"{self.root}: {error}",
                hint="choose another with --store",
            ) from error

    def folder(self, key: str) -> Path:
        """Return (and make) the local working folder of ``key``: journals, checkpoints and logs live there."""
        if not self.is_local:
            raise StoreError("Only a local store has working folders.", seen=self.root)
        path = Path(self.root) / key
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError("The store cannot be written.", seen=f"{path}: {error}") from error
        return path

    def find(self, key: str) -> Artifact | None:
        """Look up a whole artifact; None when there is none (yet)."""
        manifest = f"{self.root}/{key}/{MANIFEST}"
        if self.is_local:
            self._restore(key)
        if self.fs.get_file_info(manifest).type != pafs.FileType.File:
            return None
        if self.is_local:
            return open_artifact(Path(self.root) / key)
        local = Path(tempfile.gettempdir()) / "autodl-store" / uuid.uuid5(uuid.NAMESPACE_URL, manifest).hex
        pafs.copy_files(f"{self.root}/{key}", str(local), source_filesystem=self.fs)
        return open_artifact(local)

    @contextmanager
    def write(
        self,
        key: str,
        *,
        kind: Kind,
        spec_digest: str,
        inputs: dict[str, str],
        seed: int,
        meta: dict[str, Any] | None = None,
    ) -> Iterator[ArtifactWriter]:
        """Make the artifact ``key``; it appears whole when the block ends, and not at all when it raises.

        An artifact that is there already is replaced at that moment.

        Raises:
            StoreError: The disk is full or the store is not writable.
        """
        staging = self._staging(key)
        writer = ArtifactWriter(staging, dict(meta or {}))
        try:
            yield writer
            manifest = Manifest.of(
                staging, kind=kind, spec_digest=spec_digest, inputs=inputs, seed=seed, meta=writer.meta
            )
            write_atomic(staging / MANIFEST, manifest.to_json())
            self._publish(staging, key)
        except OSError as error:
            if not self._is_ours(error, staging):
                raise  # e.g. a source file that is gone: not a matter of the store
            raise StoreError(
                "The artifact could not be written.",
                seen=f"{self.root}/{key}: {error}",
                hint="free some space or choose another store with --store, then run the same line again",
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _staging(self, key: str) -> Path:
        target = Path(self.root) / key
        staging = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            if not self.is_local:
                return Path(tempfile.mkdtemp(prefix="autodl-"))
            self._restore(key)
            staging.mkdir(parents=True)
            _delete_leftovers(target)
        except OSError as error:
            raise StoreError(
                "The store cannot be written.",
                seen=f"{self.root}: {error}",
                hint="choose another with --store",
            ) from error
        return staging

    def _publish(self, staging: Path, key: str) -> None:
        if not self.is_local:
            self._upload(staging, key)
            return
        target = Path(self.root) / key
        moved: list[Path] = []
        for attempt in range(20):  # another process may put the same key there, or take it away, at any moment
            old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
            with contextlib.suppress(FileNotFoundError):
                target.rename(old)
                moved.append(old)
            try:
                staging.rename(target)
                break
            except OSError as error:
                if attempt == 19 or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        for old in moved:
            shutil.rmtree(old, ignore_errors=True)

    def _restore(self, key: str) -> None:
        """Put the earlier artifact back when a kill fell between the two renames of its replacement."""
        target = Path(self.root) / key
        if target.exists() or not target.parent.is_dir():
            return
        whole = [p for p in target.parent.glob(f"{_hidden(target)}.old") if (p / MANIFEST).is_file()]
        if whole:
            with contextlib.suppress(OSError):  # another process was faster, or the store is read-only
                max(whole, key=lambda p: p.stat().st_mtime).rename(target)

    def _is_ours(self, error: OSError, staging: Path) -> bool:
        if not isinstance(error.filename, str | os.PathLike):
            return True
        path = Path(error.filename)
        return path.is_relative_to(staging) or (self.is_local and path.is_relative_to(self.root))

    def _upload(self, staging: Path, key: str) -> None:
        base = f"{self.root}/{key}"
        if self.fs.get_file_info(f"{base}/{MANIFEST}").type == pafs.FileType.File:
            self.fs.delete_file(f"{base}/{MANIFEST}")
        names = [p.relative_to(staging).as_posix() for p in sorted(staging.rglob("*")) if p.is_file()]
        for name in [n for n in names if n != MANIFEST] + [MANIFEST]:
            self.fs.create_dir(f"{base}/{name}".rsplit("/", 1)[0], recursive=True)
            with (staging / name).open("rb") as source, self.fs.open_output_stream(f"{base}/{name}") as stream:
                shutil.copyfileobj(source, stream, 2**22)


def _hidden(target: Path) -> str:
    """Glob of the folders that stand in for ``target`` while it is written."""
    return f".{glob.escape(target.name)}.{'[0-9a-f]' * 8}"


def _delete_leftovers(target: Path) -> None:
    """Delete what killed writers of the same key left behind; a day old, so that none is still being written."""
    for path in (*target.parent.glob(_hidden(target)), *target.parent.glob(f"{_hidden(target)}.old")):
        with contextlib.suppress(OSError):
            if path.is_dir() and time.time() - path.stat().st_mtime > 86_400:
                shutil.rmtree(path, ignore_errors=True)
