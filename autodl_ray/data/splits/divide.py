"""Dividing a data set into train, validation and test: by given folders, by published lists, or by ourselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.records import some
from autodl_ray.data.splits.assign import Unit, grouped, hashed, stratified
from autodl_ray.data.splits.lists import read_lists
from autodl_ray.data.splits.units import Picture, by_content, by_group, frequency_of, rarest, with_groups
from autodl_ray.errors import DatasetError
from autodl_ray.spec import SplitSpec

__all__ = ["SPLITS", "Division", "Picture", "divide"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
_PROTECTION = {"train": 0, "val": 1, "test": 2}
_HINTS = {
    "stratified": None,
    "group": "each class needs a group of its own for train; split.by: stratified divides within groups",
    "hash": "a hash needs many pictures (or groups); split.by: stratified gives every split some of each class",
}
_FAR = 0.05  # of all pictures: so far from its wanted share a split is worth a note


@dataclass
class Division:
    """Where each picture goes.

    Attributes:
        splits: Path → split.
        dropped: Pictures that were left out, each with its path, its reason and the picture it equals.
        unlisted: Pictures that no published list names, or that lie in none of the given splits.
        notes: Lines for the user.
    """

    splits: dict[str, Split] = field(default_factory=dict)
    dropped: list[dict[str, str]] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def divide(
    pictures: Sequence[Picture], spec: SplitSpec, *, seed: int, root: Path, skipped: Iterable[str] = ()
) -> Division:
    """Divide the pictures: published lists first, then given folders, then as ``spec.by`` says.

    - ``stratified``: in each class the shares. A picture with boxes counts for the class in it that the fewest
      pictures show (stratification by the rarest label, after Sechidis et al., 2011).
    - ``group``: what belongs together stays together; sizes and classes as even as whole groups allow.
    - ``hash``: of (seed, content) alone, or of (seed, group) where pictures have a group: a picture stays where it
      is when others come or go.

    Identical pictures never come to lie in two splits: of our own division they stay together; of given folders
    that is an error; of published lists (and of groups that are hashed) the picture stays where it is protected most
    (test before val before train). The order of ``pictures`` does not matter.

    Args:
        pictures: The usable pictures.
        spec: Fractions, rule and lists.
        seed: Root seed.
        root: Folder of the data set.
        skipped: Paths that exist but are not usable; a list may name them.

    Raises:
        SpecError: The expression of the groups is not usable.
        DatasetError: A class is too small, there are too few groups, a list does not fit, or given splits share a
            picture.
    """
    division = Division()
    pictures = sorted(pictures, key=lambda picture: picture.path)
    if spec.train_list is not None:
        pictures = _by_lists(pictures, spec, root=root, skipped=skipped, division=division)
    else:
        _refuse_leaks(pictures)
    pictures = _cut_missing(pictures, spec, seed=seed, division=division)
    _note_cut_groups(pictures, spec, division)
    division.splits = {picture.path: picture.split for picture in pictures if picture.split is not None}
    _check_classes(pictures, spec, division)
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
    given = [p.placed(listed[p.path]) for p in pictures if p.path in listed]
    return _drop_leaks(given, division)


def _drop_leaks(pictures: Sequence[Picture], division: Division) -> list[Picture]:
    kept = []
    homes = {sha: max(same, key=_protection) for sha, same in by_content(pictures).items()}
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
    for same in by_content(p for p in pictures if p.split is not None).values():
        first = same[0]
        other = next((p for p in same if p.split != first.split), None)
        if other is not None:
            leaks.append(f"{first.path} = {other.path}")
    if leaks:
        raise DatasetError(
            "The same picture lies in two splits, which would make the evaluation dishonest.",
            seen=f"{len(leaks)} such: {some(leaks)}",
            accepted="a picture in one split only",
            hint="delete one of the two files",
        )


def _cut_missing(pictures: Sequence[Picture], spec: SplitSpec, *, seed: int, division: Division) -> list[Picture]:
    """Cut the splits that are not given from those pictures that are ours to divide."""
    there = {picture.split for picture in pictures} - {None}
    wanted: dict[Split, float] = {"test": spec.test, "val": spec.val}
    shares = {split: share for split, share in wanted.items() if split not in there}
    if spec.by != "stratified" and spec.group is not None:
        pictures = with_groups(pictures, spec.group)
    if not shares:
        return _leave_out(pictures, division)
    if there:
        names = " and ".join(f"{name} ({share:.0%})" for name, share in shares.items())
        division.notes.append(f"The data set gives no {names}: cut from train, {_rule(spec)}, seed {seed}.")
        pictures = _follow(pictures)
    ours = [picture for picture in pictures if picture.split in (None, "train")]
    places = _places(ours, spec, shares, seed=seed, division=division)
    divided = [p.placed(places[p.path]) if p.path in places else p for p in pictures]
    return _drop_leaks(divided, division) if spec.by == "hash" else divided


def _rule(spec: SplitSpec) -> str:
    return {"stratified": "stratified", "group": "by group", "hash": "by hash"}[spec.by]


def _leave_out(pictures: Sequence[Picture], division: Division) -> list[Picture]:
    outside = [picture.path for picture in pictures if picture.split is None]
    if outside:
        division.unlisted += outside
        division.notes.append(f"{len(outside)} pictures are in no given split and are left out: {some(outside)}")
    return [picture for picture in pictures if picture.split is not None]


def _follow(pictures: Sequence[Picture]) -> list[Picture]:
    """Put pictures of no split where an identical one is given already."""
    homes = {picture.sha256: picture.split for picture in pictures if picture.split in ("val", "test")}
    return [p.placed(homes.get(p.sha256)) if p.split is None else p for p in pictures]


def _places(
    pictures: Sequence[Picture], spec: SplitSpec, shares: Mapping[Split, float], *, seed: int, division: Division
) -> dict[str, Split]:
    """Return the split of each path."""
    if spec.by == "group":
        return _by_group(pictures, shares, seed=seed, division=division)
    if spec.by == "hash":
        keys = {p.path: p.sha256 if p.group is None else f"group {p.group}" for p in pictures}
        homes = hashed(set(keys.values()), shares, seed=seed)
        return {path: homes[key] for path, key in keys.items()}
    homes = _stratify(pictures, shares, seed=seed)
    return {picture.path: homes[picture.sha256] for picture in pictures}


def _stratify(pictures: Sequence[Picture], shares: Mapping[Split, float], *, seed: int) -> dict[str, Split]:
    """Give each sha256 a split. A picture that has several labels counts for the class of its first path."""
    frequency = frequency_of(pictures)
    strata: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for sha256, same in by_content(pictures).items():
        strata[rarest(same[0], frequency)].append((sha256, len(same)))
    if all(picture.label is not None for picture in pictures):
        _check_sizes(pictures, strata, len(shares) + 1)
    return stratified(strata, shares, seed=seed)


def _by_group(
    pictures: Sequence[Picture], shares: Mapping[Split, float], *, seed: int, division: Division
) -> dict[str, Split]:
    without = [picture.path for picture in pictures if picture.group is None]
    if without:
        raise DatasetError(
            f"{len(without)} of {len(pictures)} pictures have no group.",
            seen=some(without, 3),
            accepted="a group for each picture: a group column of the data set, or split.group",
            hint=r"give an expression that finds the group in the path, e.g. --set 'data.split.group=(patient\d+)'",
        )
    units = by_group(pictures)
    names = sorted({str(picture.group) for picture in pictures})
    if len(units) < len(shares) + 1:
        raise DatasetError(
            "There are too few groups to be divided.",
            seen=f"{len(names)} groups ({some(names)})"
            + (f", {len(units)} of them without a picture in common" if len(units) < len(names) else ""),
            accepted=f"at least {len(shares) + 1}, one for each split",
        )
    if len(units) < len(names):
        division.notes.append(f"{len(names) - len(units)} groups share a picture with another and go with it")
    facts = [Unit(name, len(group), frequency_of(group)) for name, group in units.items()]
    homes = grouped(facts, shares, seed=seed)
    _note_sizes(facts, homes, shares, division)
    return {picture.path: homes[name] for name, group in units.items() for picture in group}


def _note_sizes(
    units: Sequence[Unit], homes: Mapping[str, Split], shares: Mapping[Split, float], division: Division
) -> None:
    total = sum(unit.size for unit in units)
    for split, share in shares.items():
        got = sum(unit.size for unit in units if homes[unit.key] == split) / total
        if abs(got - share) > _FAR:
            largest = max(unit.size for unit in units) / total
            division.notes.append(
                f"{split} has {got:.0%} of the pictures instead of {share:.0%}: groups are not cut, and the largest "
                f"has {largest:.0%}"
            )


def _note_cut_groups(pictures: Sequence[Picture], spec: SplitSpec, division: Division) -> None:
    """Say which groups are cut: by the given splits, or because we were not asked to keep them together."""
    homes: dict[str, set[Split | None]] = defaultdict(set)
    for picture in pictures:
        if picture.group is not None:
            homes[picture.group].add(picture.split)
    cut = sorted(name for name, splits in homes.items() if len(splits) > 1)
    if cut and spec.by == "stratified" and spec.train_list is None:
        division.notes.append(
            f"{len(cut)} groups lie in several splits, which may flatter the scores: {some(cut)}; split.by: group "
            "keeps them together"
        )
    elif cut:
        division.notes.append(f"The given splits cut {len(cut)} groups, which may flatter the scores: {some(cut)}")


def _check_sizes(pictures: Sequence[Picture], strata: Mapping[str, Sequence[tuple[str, int]]], least: int) -> None:
    counts = frequency_of(pictures)
    small = [
        f"{label}: {count}" + (f" ({len(strata.get(label, ()))} different)" if count >= least else "")
        for label, count in sorted(counts.items())
        if len(strata.get(label, ())) < least
    ]
    if small:
        raise DatasetError(
            "A class has too few usable pictures to be divided.",
            seen=some(small),
            accepted=f"at least {least} different pictures a class, one for each split",
            hint="add pictures to the class, or take its folder away",
        )


def _check_classes(pictures: Sequence[Picture], spec: SplitSpec, division: Division) -> None:
    shown: dict[Split, Counter[str]] = {s: frequency_of(p for p in pictures if p.split == s) for s in SPLITS}
    have = {split: set(counts) for split, counts in shown.items()}
    hint = _HINTS[spec.by] if spec.train_list is None else None
    for split in SPLITS:
        if not any(picture.split == split for picture in pictures):
            raise DatasetError(
                "A split is empty.", seen=split, accepted="at least one picture in each of train, val, test", hint=hint
            )
    unknown = (have["val"] | have["test"]) - have["train"]
    if unknown:
        raise DatasetError(
            "A class of validation or test has no picture in train.",
            seen=some(sorted(unknown)),
            accepted=f"the classes of train: {some(sorted(have['train']), 20)}",
            hint=hint,
        )
    for split in ("val", "test"):
        missing = have["train"] - have[split]
        if missing:
            division.notes.append(f"{split} has no picture of: {some(sorted(missing))}")
