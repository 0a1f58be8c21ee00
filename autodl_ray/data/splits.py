"""Dividing a data set into train, validation and test: by given folders, by published lists, or by ourselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.imagefolder import some
from autodl_ray.data.lists import read_lists
from autodl_ray.errors import DatasetError
from autodl_ray.seeding import rng_for
from autodl_ray.spec import SplitSpec

__all__ = ["SPLITS", "Division", "Picture", "divide"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
_PROTECTION = {"train": 0, "val": 1, "test": 2}


@dataclass(frozen=True)
class Picture:
    """A usable picture, before it is known where it goes.

    Attributes:
        path: Relative to the root.
        label: Name of its class.
        sha256: Of its bytes: pictures with the same one go together.
        split: Of its folder, or of the published list; None when it is ours to say.
    """

    path: str
    label: str
    sha256: str
    split: Split | None = None


@dataclass
class Division:
    """Where each picture goes.

    Attributes:
        splits: Path → split.
        dropped: Pictures that were left out, each with its path, its reason and the picture it equals.
        unlisted: Pictures that no published list names.
        notes: Lines for the user.
    """

    splits: dict[str, Split] = field(default_factory=dict)
    dropped: list[dict[str, str]] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def divide(
    pictures: Sequence[Picture], spec: SplitSpec, *, seed: int, root: Path, skipped: Iterable[str] = ()
) -> Division:
    """Divide the pictures: published lists first, then given folders, then stratified by class.

    Identical pictures never come to lie in two splits: of our own division they stay together; of given folders
    that is an error; of published lists the picture stays where it is protected most (test before val before train).

    Args:
        pictures: The usable pictures, sorted by path.
        spec: Fractions and lists.
        seed: Root seed.
        root: Folder of the data set.
        skipped: Paths that exist but are not usable; a list may name them.

    Raises:
        DatasetError: A class is too small, a list does not fit, or given splits share a picture.
    """
    division = Division()
    if spec.train_list is not None:
        pictures = _by_lists(pictures, spec, root=root, skipped=skipped, division=division)
    elif pictures[0].split is not None:
        _refuse_leaks(pictures)
    pictures = _cut_missing(pictures, spec, seed=seed, division=division)
    division.splits = {picture.path: picture.split for picture in pictures if picture.split is not None}
    _check_classes(pictures, division)
    return division


def _by_lists(
    pictures: Sequence[Picture], spec: SplitSpec, *, root: Path, skipped: Iterable[str], division: Division
) -> list[Picture]:
    paths = [picture.path for picture in pictures]
    listed = read_lists(spec, [*paths, *skipped], root=root)
    division.unlisted = [path for path in paths if path not in listed]
    if division.unlisted:
        count = len(division.unlisted)
        division.notes.append(f"{count} pictures are in no published list and are left out: {some(division.unlisted)}")
    given = [replace(p, split=listed[p.path]) for p in pictures if p.path in listed]
    return _drop_leaks(given, division)


def _drop_leaks(pictures: Sequence[Picture], division: Division) -> list[Picture]:
    kept = []
    homes = {sha: max(group, key=_protection) for sha, group in _groups(pictures).items()}
    for picture in pictures:
        home = homes[picture.sha256]
        if picture.split == home.split:
            kept.append(picture)
            continue
        reason = f"the same picture is in {home.split}"
        division.dropped.append(
            {"path": picture.path, "split": str(picture.split), "reason": reason, "same_as": home.path}
        )
        division.notes.append(f"{picture.path} is left out of {picture.split}: {reason} ({home.path})")
    return kept


def _protection(picture: Picture) -> int:
    return -1 if picture.split is None else _PROTECTION[picture.split]


def _refuse_leaks(pictures: Sequence[Picture]) -> None:
    leaks = []
    for group in _groups(pictures).values():
        first = group[0]
        other = next((p for p in group if p.split != first.split), None)
        if other is not None:
            leaks.append(f"{first.path} = {other.path}")
    if leaks:
        raise DatasetError(
            "The same picture lies in two splits, which would make the evaluation dishonest.",
            seen=f"{len(leaks)} such: {some(leaks)}",
            accepted="a picture in one split only",
            hint="delete one of the two files",
        )


def _groups(pictures: Iterable[Picture]) -> dict[str, list[Picture]]:
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        groups[picture.sha256].append(picture)
    return groups


def _cut_missing(pictures: Sequence[Picture], spec: SplitSpec, *, seed: int, division: Division) -> list[Picture]:
    """Cut the splits that are not given from those pictures that are ours to divide."""
    there = {picture.split for picture in pictures} - {None}
    shares: dict[Split, float] = {}
    if "test" not in there:
        shares["test"] = spec.test
    if "val" not in there:
        shares["val"] = spec.val
    if there and shares:
        names = " and ".join(f"{name} ({share:.0%})" for name, share in shares.items())
        division.notes.append(f"The data set gives no {names}: cut from train, stratified, seed {seed}.")
    if not shares:
        return list(pictures)
    ours = [picture for picture in pictures if picture.split in (None, "train")]
    places = _stratify(ours, shares, seed=seed)
    return [replace(p, split=places[p.sha256]) if p.sha256 in places else p for p in pictures]


def _stratify(pictures: Sequence[Picture], shares: Mapping[Split, float], *, seed: int) -> dict[str, Split]:
    """Give each sha256 a split: in each class the shares, and at least one picture a split.

    Each class is shuffled by itself, so that another class does not move it. A picture that has several labels
    counts for the class of its first path.
    """
    by_label: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for sha256, group in _groups(pictures).items():
        by_label[group[0].label].append((sha256, len(group)))
    _check_sizes(pictures, by_label, len(shares) + 1)
    places: dict[str, Split] = {}
    for label, groups in by_label.items():
        groups.sort()
        order = rng_for(seed, "split", label).permutation(len(groups))
        shuffled = sorted((groups[i] for i in order), key=lambda group: group[1])  # stable: large groups come last
        places.update(_deal(shuffled, shares))
    return places


def _deal(groups: Sequence[tuple[str, int]], shares: Mapping[Split, float]) -> dict[str, Split]:
    total = sum(size for _, size in groups)
    left = list(groups)
    places: dict[str, Split] = {}
    for position, (split, share) in enumerate(shares.items()):
        wanted = max(1, round(total * share))
        reserve = len(shares) - position  # one group for each split that comes later, train included
        taken = 0
        while taken < wanted and len(left) > reserve:
            sha256, size = left.pop(0)
            places[sha256] = split
            taken += size
    places.update((sha256, "train") for sha256, _ in left)
    return places


def _check_sizes(pictures: Sequence[Picture], by_label: Mapping[str, Sequence[tuple[str, int]]], least: int) -> None:
    counts = Counter(picture.label for picture in pictures)
    small = [
        f"{label}: {count}" + (f" ({len(by_label.get(label, ()))} different)" if count >= least else "")
        for label, count in sorted(counts.items())
        if len(by_label.get(label, ())) < least
    ]
    if small:
        raise DatasetError(
            "A class has too few usable pictures to be divided.",
            seen=some(small),
            accepted=f"at least {least} different pictures a class, one for each split",
            hint="add pictures to the class, or take its folder away",
        )


def _check_classes(pictures: Sequence[Picture], division: Division) -> None:
    have: dict[Split, set[str]] = {split: {p.label for p in pictures if p.split == split} for split in SPLITS}
    for split in SPLITS:
        if not have[split]:
            raise DatasetError(
                "A split is empty.", seen=split, accepted="at least one picture in each of train, val, test"
            )
    unknown = (have["val"] | have["test"]) - have["train"]
    if unknown:
        raise DatasetError(
            "A class of validation or test has no picture in train.",
            seen=some(sorted(unknown)),
            accepted=f"the classes of train: {some(sorted(have['train']), 20)}",
        )
    for split in ("val", "test"):
        missing = have["train"] - have[split]
        if missing:
            division.notes.append(f"{split} has no picture of: {some(sorted(missing))}")
