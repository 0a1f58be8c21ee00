"""From what a user names to a file or folder on this machine: archives are unpacked, remote folders fetched."""

from __future__ import annotations

import json
from pathlib import Path

from autodl_ray.data.formats.archives import ARCHIVE_SUFFIXES, decompress, unpack
from autodl_ray.data.formats.cached import build_once, content_key
from autodl_ray.data.formats.remote_folder import fetch_folder, is_remote
from autodl_ray.data.formats.walk import open_root
from autodl_ray.data.formats.webdataset import is_webdataset

__all__ = ["open_place"]

_LEFT_OUT = ".left-out.json"  # hidden, so no reader sees it


def open_place(path: str | Path, *, cache: Path) -> tuple[Path, str]:
    """Return a file or folder on this machine, and what was done to have it (empty for nothing).

    An archive is unpacked once for each content; a tar of the kind WebDataset is read as it is.

    Raises:
        DatasetError: There is no such place, or it cannot be opened.
        StoreError: The cache cannot be written.
    """
    if is_remote(path):
        found = fetch_folder(str(path), cache)
        done = f"remote folder, {found.fetched} of {found.files} files fetched"
        archive = _only_archive(found.folder)
        return (_open_archive(archive, cache)[0], done) if archive else (found.folder, done)
    place = Path(path).expanduser()
    if not place.is_file():
        return open_root(path), ""
    place = place.resolve()
    return _open_archive(place, cache) if place.name.lower().endswith(ARCHIVE_SUFFIXES) else (place, "")


def _only_archive(folder: Path) -> Path | None:
    names = [path for path in folder.iterdir() if not path.name.startswith(".")]
    is_archive = len(names) == 1 and names[0].is_file() and names[0].name.lower().endswith(ARCHIVE_SUFFIXES)
    return names[0] if is_archive else None


def _open_archive(archive: Path, cache: Path) -> tuple[Path, str]:
    name = archive.name.lower()
    if not name.endswith(".zip") and is_webdataset(archive):
        if name.endswith(".tar"):
            return archive, ""
        plain = f"{archive.name.split('.', 1)[0] or 'data'}.tar"
        folder = cache / "tars" / content_key(archive, cache)
        return build_once(folder, lambda target: decompress(archive, target / plain)) / plain, "tar, decompressed"
    folder = cache / "unpacked" / content_key(archive, cache)
    build_once(folder, lambda target: _unpack(archive, target))
    left_out = json.loads((folder / _LEFT_OUT).read_text())
    said = "".join(f"; left out: {count} {what}" for what, count in left_out.items())
    return folder, f"{'zip' if name.endswith('.zip') else 'tar'} archive, unpacked{said}"


def _unpack(archive: Path, target: Path) -> None:
    result = unpack(archive, target)
    (target / _LEFT_OUT).write_text(json.dumps(result.passed_over))
