"""Finding out of what format a place is, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from autodl_ray.data.formats.base import Format, Place, Sign
from autodl_ray.data.records import some
from autodl_ray.errors import DatasetError

__all__ = ["Alternative", "Detection", "detect_in"]

_MOST_FOLDERS = 16
_DEEPEST = 3
_WEAK = 0.6


@dataclass(frozen=True)
class Alternative:
    """Another format that the place may be of.

    Attributes:
        format: Its name.
        why: What was seen.
        confidence: In (0, 1].
    """

    format: str
    why: str
    confidence: float


@dataclass(frozen=True)
class Detection:
    """What format a place is of.

    Attributes:
        format: Name of the format.
        why: What was seen.
        confidence: In (0, 1].
        not_understood: Files and folders of the place that the format does not explain.
        alternatives: Other formats that may be meant, the likeliest first.
        path: Folder or file that is read: the given one, a folder in it, or what was unpacked or fetched.
        opened: What was done before, e.g. ``zip archive, unpacked``; empty for nothing.
        inside: Folder of the given place that is read, relative to it; empty for the place itself.
    """

    format: str
    why: str
    confidence: float
    not_understood: tuple[str, ...]
    alternatives: tuple[Alternative, ...]
    path: Path
    opened: str = ""
    inside: str = ""


def detect_in(path: Path, formats: Mapping[str, Format], *, opened: str = "") -> Detection | None:
    """Look at a file or folder, and where nothing is seen, at the only folder in it that shows something."""
    here, depth = [Place(path)], 0
    while here and depth <= _DEEPEST:
        found = [(place, signs) for place in here if (signs := _signs(place, formats))]
        if len(found) == 1:
            _refuse_data_sets_as_classes(path, *found[0], formats)
            inside = "" if found[0][0].path == path else found[0][0].path.relative_to(path).as_posix()
            return replace(_detection(*found[0], opened=opened), inside=inside)
        if found:
            _refuse_several(path, [place for place, _ in found])
        here = [place.child(name) for place in here for name in place.folders[:_MOST_FOLDERS]][:_MOST_FOLDERS]
        depth += 1
    return None


def _refuse_data_sets_as_classes(
    path: Path, place: Place, signs: list[tuple[str, Sign]], formats: Mapping[str, Format]
) -> None:
    """Folders whose pictures lie deep may be classes, but not when they are data sets of another format."""
    name, sign = signs[0]
    if name != "imagefolder" or sign.confidence > _WEAK:
        return
    special = {key: one for key, one in formats.items() if key != name}
    inside = [place.child(folder) for folder in place.folders[:_MOST_FOLDERS]]
    own = [one for one in inside if _signs(one, special)]
    if own:
        _refuse_several(path, own)


def _signs(place: Place, formats: Mapping[str, Format]) -> list[tuple[str, Sign]]:
    signs = [(name, sign) for name, one in formats.items() if (sign := one.look(place))]
    return sorted(signs, key=lambda pair: -pair[1].confidence)  # stable: of equal ones the first in the table


def _detection(place: Place, signs: list[tuple[str, Sign]], *, opened: str) -> Detection:
    name, sign = signs[0]
    # What explains nothing of the place (a single file) leaves nothing open.
    rest = [] if place.is_file else [n for n in (*place.folders, *place.files) if n not in sign.uses]
    others = tuple(Alternative(other, s.why, s.confidence) for other, s in signs[1:])
    return Detection(name, sign.why, sign.confidence, tuple(rest), others, place.path, opened)


def _refuse_several(path: Path, places: list[Place]) -> None:
    raise DatasetError(
        "The folder holds several data sets.",
        seen=some(place.path.relative_to(path).as_posix() for place in places),
        accepted="one data set",
        hint="give the folder of one of them, or say --format imagefolder if its folders are classes",
    )
