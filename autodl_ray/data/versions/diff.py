"""What differs between two versions, picture by picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autodl_ray.data.versions.index import IndexRow

__all__ = ["Change", "Diff", "diff_rows"]


@dataclass(frozen=True)
class Change:
    """A picture that is in both versions, and not the same.

    Attributes:
        path: In the second version.
        was: Its path in the first.
        before: Label or split in the first; empty for a change of boxes or content.
        after: The same in the second.
    """

    path: str
    was: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Diff:
    """What differs.

    A picture that went to another path (in a folder of class folders: to another class) with the same bytes is one
    picture: it was relabelled, re-split or moved, not removed and added.

    Attributes:
        added: Paths that only the second version has.
        removed: Paths that only the first version has.
        relabelled: Another label.
        resplit: Another split.
        boxes: Other boxes; of ``before`` and ``after``, their number.
        content: Other bytes under the same path.
        moved: Another path, and nothing else.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    relabelled: tuple[Change, ...]
    resplit: tuple[Change, ...]
    boxes: tuple[Change, ...]
    content: tuple[Change, ...]
    moved: tuple[Change, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many of each."""
        return {name: len(getattr(self, name)) for name in self.__dataclass_fields__}

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        return not any(self.counts.values())

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def diff_rows(before: Sequence[IndexRow], after: Sequence[IndexRow], *, splits: bool = True) -> Diff:
    """Compare two versions.

    Args:
        before: Rows of the first.
        after: Rows of the second.
        splits: Whether both say where a picture belongs.
    """
    old = {row.path: row for row in before}
    new = {row.path: row for row in after}
    pairs = [(old[path], row) for path, row in new.items() if path in old]
    removed = [row for path, row in old.items() if path not in new]
    added = [row for path, row in new.items() if path not in old]
    moved = _moves(removed, added)
    gone, come = {a.path for a, _ in moved}, {b.path for _, b in moved}
    pairs += moved
    pairs.sort(key=lambda pair: pair[1].path)
    resplit = [(a, b) for a, b in pairs if splits and a.split != b.split]
    relabelled = [(a, b) for a, b in pairs if a.label != b.label]
    boxes = [(a, b) for a, b in pairs if a.boxes != b.boxes]
    said = {b.path for _, b in (*resplit, *relabelled, *boxes)}
    return Diff(
        added=tuple(sorted(row.path for row in added if row.path not in come)),
        removed=tuple(sorted(row.path for row in removed if row.path not in gone)),
        relabelled=tuple(Change(b.path, a.path, a.label or "(none)", b.label or "(none)") for a, b in relabelled),
        resplit=tuple(Change(b.path, a.path, a.split or "(none)", b.split or "(none)") for a, b in resplit),
        boxes=tuple(Change(b.path, a.path, str(len(a.boxes or ())), str(len(b.boxes or ()))) for a, b in boxes),
        content=tuple(Change(b.path, a.path) for a, b in pairs if a.sha256 != b.sha256),
        moved=tuple(Change(b.path, a.path) for a, b in pairs if a.path != b.path and b.path not in said),
    )


def _moves(removed: Sequence[IndexRow], added: Sequence[IndexRow]) -> list[tuple[IndexRow, IndexRow]]:
    """Pair what went away with what came and has the same bytes."""
    waiting: dict[str, list[IndexRow]] = defaultdict(list)
    for row in sorted(removed, key=lambda row: row.path, reverse=True):
        waiting[row.sha256].append(row)
    return [
        (waiting[row.sha256].pop(), row)
        for row in sorted(added, key=lambda row: row.path)
        if row.sha256 and waiting.get(row.sha256)
    ]
