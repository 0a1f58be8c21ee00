"""What a division must not cut: identical pictures, and the groups that pictures belong to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.records import some
from autodl_ray.errors import SpecError

__all__ = ["Picture", "by_content", "by_group", "frequency_of", "rarest", "with_groups"]

_MATCH_S = 10.0

# Python's matcher cannot be interrupted from another thread, so it runs in a process that can be ended.
_MATCHER = """
import json, re, sys
job = json.load(sys.stdin)
find = re.compile(job["pattern"]).search
found = (find(path) for path in job["paths"])
json.dump([match.group(1) if match else None for match in found], sys.stdout)
"""


@dataclass(frozen=True)
class Picture:
    """A usable picture, before it is known where it goes.

    Attributes:
        path: Relative to the root.
        label: Name of its class; None for a picture with boxes.
        sha256: Of its bytes: pictures with the same one go together.
        split: Of its folder, or of the published list; None when it is ours to say.
        group: What it belongs to (a patient, a site), where the data set says so.
        labels: Names of the classes of its boxes, repeated or not; only where ``label`` is None.
    """

    path: str
    label: str | None
    sha256: str
    split: Split | None = None
    group: str | None = None
    labels: tuple[str, ...] = ()

    @property
    def shows(self) -> tuple[str, ...]:
        """The classes that are in it, each once."""
        return tuple(sorted(set(self.labels))) if self.label is None else (self.label,)

    def placed(self, split: Split | None, group: str | None = None) -> Picture:
        """Return it in a split (and a group); ``dataclasses.replace`` takes three times as long."""
        return Picture(self.path, self.label, self.sha256, split, group or self.group, self.labels)


def by_content(pictures: Iterable[Picture]) -> dict[str, list[Picture]]:
    """Collect identical pictures: sha256 → pictures, in the order given."""
    same: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        same[picture.sha256].append(picture)
    return dict(same)


def by_group(pictures: Sequence[Picture]) -> dict[str, list[Picture]]:
    """Collect what belongs together: the first group's name → pictures of it, and of groups that share a picture.

    Two groups with an identical picture count as one, or the picture would come to lie in two splits.

    Args:
        pictures: Each with a group.
    """
    parents: dict[str, str] = {}

    def home(name: str) -> str:
        while parents[name] != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    for picture in pictures:
        parents.setdefault(str(picture.group), str(picture.group))
    for same in by_content(pictures).values():
        names = sorted({home(str(picture.group)) for picture in same})
        parents.update((name, names[0]) for name in names)
    units: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        units[home(str(picture.group))].append(picture)
    return dict(units)


def with_groups(pictures: Sequence[Picture], expression: str) -> list[Picture]:
    """Give each picture the group that the first ``(...)`` of a regular expression finds in its path.

    Raises:
        SpecError: It is no regular expression, has no group, takes too long, or does not find one in every path.
    """
    _check_expression(expression)
    names = _find(expression, [picture.path for picture in pictures])
    missed = [picture.path for picture, name in zip(pictures, names, strict=True) if not name]
    if missed:
        raise SpecError(
            f"The expression split.group finds a group in {len(pictures) - len(missed)} of {len(pictures)} paths.",
            seen=f"{expression!r} misses {len(missed)}: {some(missed, 3)}",
            accepted="an expression whose first (...) finds the group in every path",
            hint="it is searched for anywhere in the path below the data folder",
        )
    return [picture.placed(picture.split, name) for picture, name in zip(pictures, names, strict=True)]


def rarest(picture: Picture, frequency: Counter[str]) -> str:
    """Return the class of a picture that the fewest pictures show; ``""`` where it shows none."""
    return min(picture.shows, key=lambda name: (frequency[name], name), default="")


def frequency_of(pictures: Iterable[Picture]) -> Counter[str]:
    """Count the pictures that show each class."""
    return Counter(name for picture in pictures for name in picture.shows)


def _check_expression(expression: str) -> None:
    try:
        groups = re.compile(expression).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise SpecError("split.group is no regular expression.", seen=f"{expression!r}: {error}") from error
    if groups == 0:
        raise SpecError(
            "split.group does not say what the group is.",
            seen=repr(expression),
            accepted=r"an expression with a (...) group, e.g. 'patient(\d+)_'",
        )


def _find(expression: str, paths: Sequence[str]) -> list[str | None]:
    job = json.dumps({"pattern": expression, "paths": list(paths)})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-W", "ignore", "-c", _MATCHER],
            input=job,
            capture_output=True,
            text=True,
            timeout=_MATCH_S + len(paths) / 10_000,
        )
    except subprocess.TimeoutExpired as error:
        raise SpecError(
            "The regular expression split.group takes too long.",
            seen=f"{expression!r}, more than {error.timeout:.0f} s for {len(paths)} paths",
            hint="avoid repeats within repeats, such as (a+)+",
        ) from error
    if done.returncode != 0:
        raise SpecError(
            "The regular expression split.group cannot be applied.",
            seen=f"{expression!r}: {(done.stderr.strip() or f'exit code {done.returncode}').splitlines()[-1]}",
        )
    names: list[str | None] = json.loads(done.stdout)
    return names
