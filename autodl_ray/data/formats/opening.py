"""From what a user names to a file or folder on this machine: archives are unpacked, remote folders fetched."""

from __future__ import annotations

from pathlib import Path

from autodl_ray.data.formats.walk import open_root

__all__ = ["open_place"]


def open_place(path: str | Path, *, cache: Path) -> tuple[Path, str]:
    """Return a file or folder on this machine, and what was done to have it (empty for nothing).

    Raises:
        DatasetError: There is no such place, or it cannot be opened.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return place.resolve(), ""
    return open_root(path), ""
