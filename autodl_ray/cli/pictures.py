"""Pictures that a command is given as a folder."""

from __future__ import annotations

from pathlib import Path

__all__ = ["pictures_below"]


def pictures_below(folder: Path) -> list[Path]:
    """Return the pictures in a folder and below it, sorted.

    Raises:
        DatasetError: There are none.
    """
    from autodl_ray.errors import DatasetError
    from autodl_ray.images import IMAGE_SUFFIXES

    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise DatasetError(
            "There are no pictures in this folder.",
            seen=str(folder),
            accepted=f"files with {', '.join(IMAGE_SUFFIXES)}",
        )
    return found
