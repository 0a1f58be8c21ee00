"""Division by class, by group and by hash: shares, what stays together, and what the errors say."""

from __future__ import annotations

import itertools
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodl_ray.data import formats, run
from autodl_ray.data.splits.assign import Unit, grouped
from autodl_ray.data.splits.divide import SPLITS, Division, Picture, divide
from autodl_ray.errors import DatasetError, SpecError
from autodl_ray.seeding import rng_for
from autodl_ray.spec import DataSpec, SplitSpec
from tests.data.conftest import MakeFolder, make_context, write_picture

ROOT = Path("photos")


def split(pictures: Sequence[Picture], *, seed: int = 0, **spec: Any) -> Division:
    return divide(pictures, SplitSpec.model_validate(spec), seed=seed, root=ROOT)


def photos(count: int, *, groups: int = 0, classes: int = 3, seed: int = 0) -> list[Picture]:
    """Pictures whose content, class and group are drawn; each group prefers classes of its own."""
    rng = rng_for(seed, "photos", count, groups)
    made = []
    for i in range(count):
        group = int(rng.integers(groups)) if groups else 0
        label = (group + int(rng.integers(classes)) * int(rng.integers(2))) % classes
        path = f"p{group}/{i:05d}.png"
        made.append(Picture(path, f"class{label}", f"{rng.integers(2**62):x}", group=f"p{group}" if groups else None))
    return made


def sizes(division: Division) -> dict[str, int]:
    return dict(Counter(division.splits.values()))


def homes_of_groups(pictures: Sequence[Picture], division: Division) -> dict[str, set[str]]:
    homes: dict[str, set[str]] = defaultdict(set)
    for picture in pictures:
        homes[str(picture.group)].add(division.splits[picture.path])
    return homes


@pytest.mark.parametrize("by", ["stratified", "group", "hash"])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_order_of_the_input_does_not_matter(by: str, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 1000))
    pictures = photos(150, groups=0 if by == "hash" else 15, seed=seed)
    shuffled = list(pictures)
    random.Random(seed).shuffle(shuffled)
    assert split(shuffled, by=by, seed=seed) == split(pictures, by=by, seed=seed)


@pytest.mark.parametrize("by", ["stratified", "group", "hash"])
def test_another_seed_gives_another_division(by: str) -> None:
    pictures = photos(300, groups=60)
    assert split(pictures, by=by, seed=1).splits != split(pictures, by=by, seed=0).splits


@given(seed=st.integers(0, 1000), val=st.floats(0.05, 0.3), test=st.floats(0.05, 0.3))
def test_stratified_has_the_shares_in_every_class(seed: int, val: float, test: float) -> None:
    pictures = photos(300, seed=seed)
    division = split(pictures, val=val, test=test, seed=seed)
    for label, count in Counter(p.label for p in pictures).items():
        got = Counter(division.splits[p.path] for p in pictures if p.label == label)
        assert abs(got["val"] - val * count) <= 1
        assert abs(got["test"] - test * count) <= 1


# -- by group


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), groups=st.integers(8, 60))
def test_no_group_is_cut_and_sizes_are_near(seed: int, groups: int) -> None:
    pictures = photos(400, groups=groups, seed=seed)
    division = split(pictures, by="group", seed=seed)
    assert all(len(homes) == 1 for homes in homes_of_groups(pictures, division).values())
    largest = max(Counter(p.group for p in pictures).values())
    for name, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        assert abs(sizes(division)[name] - share * 400) <= largest


def test_classes_are_even_where_groups_allow() -> None:
    pictures = photos(3000, groups=150, classes=4)
    division = split(pictures, by="group")
    counts = Counter(p.label for p in pictures)
    for name in ("val", "test"):
        got = Counter(p.label for p in pictures if division.splits[p.path] == name)
        assert all(got[label] / count == pytest.approx(0.15, abs=0.03) for label, count in counts.items())


@pytest.mark.parametrize("seed", range(10))
def test_few_groups_are_divided_as_well_as_they_can_be(seed: int) -> None:
    """Seven groups have 3⁷ divisions: the sum that is lowered is near the least of all (200 of 201 seeds)."""
    counts = rng_for(seed, "few").integers(0, 20, (7, 3))
    units = [Unit(f"g{i}", int(row.sum()), {f"c{k}": int(n) for k, n in enumerate(row) if n})
             for i, row in enumerate(counts) if row.sum()]  # fmt: skip
    table = np.array([[*(unit.counts.get(f"c{k}", 0) for k in range(3)), unit.size] for unit in units], dtype=float)
    want = np.outer([0.7, 0.15, 0.15], table.sum(axis=0))

    def cost(places: Sequence[int]) -> float:
        have = np.stack([table[[p == split for p in places]].sum(axis=0) for split in range(3)])
        if (have[:, 3] == 0).any() or (have[0] == 0).any():
            return float("inf")
        return float(((have - want) ** 2 / want * [1, 1, 1, 3]).sum())

    found = grouped(units, {"test": 0.15, "val": 0.15}, seed=seed)
    mine = cost([("train", "test", "val").index(found[unit.key]) for unit in units])
    assert mine <= 1.1 * min(cost(places) for places in itertools.product(range(3), repeat=len(units))) + 1e-6


def test_every_class_is_in_train_and_every_split_has_a_group() -> None:
    small = [Picture(f"g{g}/{i}.png", "rare" if g == 0 else "usual", f"{g} {i}", group=f"g{g}")
             for g, n in ((0, 3), (1, 40), (2, 30), (3, 30)) for i in range(n)]  # fmt: skip
    division = split(small, by="group")
    assert set(sizes(division)) == set(SPLITS)
    assert {division.splits[p.path] for p in small if p.label == "rare"} == {"train"}
    assert "val has no picture of: rare" in division.notes
    assert any("groups are not cut, and the largest has 39%" in note for note in division.notes)


def test_groups_that_share_a_picture_go_together() -> None:
    pictures = photos(200, groups=20)
    twin = replace(pictures[0], path="elsewhere.png", group="p-other")
    for seed in range(5):
        division = split([*pictures, twin], by="group", seed=seed)
        assert division.splits[twin.path] == division.splits[pictures[0].path]
    assert "1 groups share a picture with another and go with it" in division.notes


def test_too_few_groups() -> None:
    with pytest.raises(DatasetError, match="too few groups") as caught:
        split(photos(60, groups=2), by="group")
    assert "2 groups (p0, p1)" in str(caught.value)
    assert "at least 3, one for each split" in str(caught.value)
    joined = [replace(p, sha256="same") if i < 60 else p for i, p in enumerate(photos(80, groups=3))]
    with pytest.raises(DatasetError, match="1 of them without a picture in common"):
        split(joined, by="group")


def test_pictures_without_a_group() -> None:
    pictures = [replace(p, group=None) if i % 10 == 0 else p for i, p in enumerate(photos(60, groups=6))]
    with pytest.raises(DatasetError, match="6 of 60 pictures have no group") as caught:
        split(pictures, by="group")
    assert "split.group" in str(caught.value)


def test_a_group_from_the_path() -> None:
    pictures = [replace(p, group=None) for p in photos(300, groups=20)]
    division = split(pictures, by="group", group=r"^p(\d+)/")
    homes: dict[str, set[str]] = defaultdict(set)
    for path, home in division.splits.items():
        homes[path.split("/")[0]].add(home)
    assert len(homes) == 20
    assert all(len(found) == 1 for found in homes.values())


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (r"patient(\d+)", "finds a group in 0 of 60 paths[^~]*misses 60: "),
        (r"p([0-2])/", "finds a group in [1-5]. of 60 paths"),
        (r"(x)?", "finds a group in 0 of 60 paths"),
        (r"p\d+", r"does not say what the group is[^~]*\(\.\.\.\) group"),
        (r"p(\d+", "no regular expression[^~]*unterminated"),
    ],
)
def test_an_expression_that_does_not_fit(expression: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        split(photos(60, groups=6), by="group", group=expression)


def test_an_expression_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autodl_ray.data.splits.units._MATCH_S", 0.5)
    pictures = [replace(p, path="a" * 60 + f" {p.path}") for p in photos(20, groups=5)]
    with pytest.raises(SpecError, match="takes too long") as caught:
        split(pictures, by="group", group=r"^(a+)+$")
    assert "repeats within repeats" in str(caught.value)


# -- by hash


@given(seed=st.integers(0, 1000), more=st.integers(1, 300), groups=st.sampled_from([0, 150]))
def test_a_sample_keeps_its_split_when_the_set_grows(seed: int, more: int, groups: int) -> None:
    pictures = photos(500, groups=groups, seed=seed)
    few, many = split(pictures[: 500 - more], by="hash", seed=seed), split(pictures, by="hash", seed=seed)
    assert few.splits.items() <= many.splits.items()
    if groups:
        assert all(len(homes) == 1 for homes in homes_of_groups(pictures, many).values())


def test_hash_has_about_the_shares() -> None:
    division = split(photos(5000), by="hash", val=0.1, test=0.2)
    assert sizes(division)["val"] == pytest.approx(500, abs=4 * 21)  # four standard deviations
    assert sizes(division)["test"] == pytest.approx(1000, abs=4 * 28)


def test_a_larger_validation_share_leaves_the_test_split_as_it_is() -> None:
    pictures = photos(500)
    before, after = split(pictures, by="hash", val=0.1), split(pictures, by="hash", val=0.2)
    moved = {(before.splits[path], home) for path, home in after.splits.items() if before.splits[path] != home}
    assert moved == {("train", "val")}


def test_a_new_name_or_label_moves_nothing() -> None:
    pictures = photos(200)
    renamed = [replace(p, path=f"new/{p.path}", label="class0") for p in pictures]
    division = split(renamed, by="hash")
    assert division.splits == {f"new/{path}": home for path, home in split(pictures, by="hash").splits.items()}


def test_identical_pictures_stay_together() -> None:
    pictures = photos(200)
    twins = [replace(p, path=f"twin{i}.png") for i, p in enumerate(pictures)]
    for by in ("stratified", "hash"):
        division = split([*pictures, *twins], by=by)
        assert all(division.splits[f"twin{i}.png"] == division.splits[p.path] for i, p in enumerate(pictures))


def test_a_picture_of_two_hashed_groups_stays_where_it_is_protected_most() -> None:
    pictures = photos(400, groups=40)
    alone = split(pictures, by="hash")
    in_test = next(p for p in pictures if alone.splits[p.path] == "test")
    in_train = next(p for p in pictures if alone.splits[p.path] == "train")
    twin = replace(in_test, path="twin.png", group=in_train.group)
    division = split([*pictures, twin], by="hash")
    assert division.splits == alone.splits
    assert [(row["path"], row["same_as"]) for row in division.dropped] == [("twin.png", in_test.path)]


def test_hash_says_which_split_misses_a_class() -> None:
    pictures = [*photos(300), *(Picture(f"rare{i}.png", "rare", f"rare {i}") for i in range(2))]
    seed = next(s for s in range(50) if {split(pictures, by="hash", seed=s).splits[f"rare{i}.png"] for i in (0, 1)}
                == {"train"})  # fmt: skip
    division = split(pictures, by="hash", seed=seed)
    assert {"val has no picture of: rare", "test has no picture of: rare"} <= set(division.notes)


def test_hash_may_leave_train_without_a_class() -> None:
    pictures = photos(300)
    home = {p.path: s for p, s in zip(pictures, split(pictures, by="hash").splits.values(), strict=True)}
    only = next(i for i, p in enumerate(pictures) if home[p.path] == "test")
    pictures[only] = replace(pictures[only], label="rare")
    with pytest.raises(DatasetError, match="no picture in train") as caught:
        split(pictures, by="hash")
    assert "seen: rare" in str(caught.value)
    assert "split.by: stratified" in str(caught.value)


# -- pictures with boxes


def boxed(count: int) -> list[Picture]:
    """One in two shows a car, one in five a dog, one in 50 a cat, and some nothing."""
    rng = rng_for(0, "boxed")
    chances = {"car": 0.5, "dog": 0.2, "cat": 0.02}
    made = []
    for i in range(count):
        names = tuple(name for name, chance in chances.items() if rng.random() < chance for _ in range(2))
        made.append(Picture(f"{i:04d}.png", None, f"sha {i}", labels=names))
    return made


def test_pictures_with_boxes_are_stratified_by_their_rarest_class() -> None:
    pictures = boxed(600)
    division = split(pictures)
    counts = Counter(name for p in pictures for name in p.shows)
    assert 10 < counts["cat"] < 40
    for name in ("val", "test"):
        got = Counter(label for p in pictures if division.splits[p.path] == name for label in p.shows)
        assert got["cat"] == pytest.approx(0.15 * counts["cat"], abs=1)
        assert got["dog"] / counts["dog"] == pytest.approx(0.15, abs=0.04)
        assert got["car"] / counts["car"] == pytest.approx(0.15, abs=0.04)
        assert sum(s == name for s in division.splits.values()) == pytest.approx(90, abs=4)


def test_a_class_of_two_pictures_with_boxes_is_noted_not_refused() -> None:
    pictures = [replace(p, labels=(*p.labels, "owl")) if i in (3, 4) else p for i, p in enumerate(boxed(100))]
    division = split(pictures)
    assert "train" in {division.splits[pictures[i].path] for i in (3, 4)}
    assert any("no picture of" in note and "owl" in note for note in division.notes)


def test_boxes_by_group_and_by_hash() -> None:
    pictures = [replace(p, group=f"g{i % 30}") for i, p in enumerate(boxed(600))]
    division = split(pictures, by="group")
    assert sizes(division)["val"] == pytest.approx(90, abs=20)
    assert set(sizes(split(pictures, by="hash"))) == set(SPLITS)


@pytest.mark.shared
def test_bccd_is_stratified_by_its_rarest_cell(tmp_path: Path) -> None:
    root = Path(os.environ.get("AUTODL_SHARED", Path(__file__).parents[4] / "shared")) / "data" / "bccd" / "BCCD"
    if not root.is_dir():
        pytest.skip("the shared data sets are not here")
    records = formats.read(str(root), cache=tmp_path, format="auto").records
    pictures = [Picture(r.path, None, r.path, labels=tuple(box.label for box in r.boxes or ())) for r in records]
    division = split(pictures)
    counts = Counter(name for p in pictures for name in p.shows)
    for part in ("val", "test"):
        got = Counter(name for p in pictures if division.splits[p.path] == part for name in p.shows)
        assert all(got[name] / counts[name] == pytest.approx(0.15, abs=0.01) for name in counts)
    assert len(counts) == 3


# -- through the stage


def test_a_folder_that_grows_keeps_its_splits(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 60, "b": 40})
    spec = DataSpec.model_validate({"path": str(root), "split": {"by": "hash"}})
    before = run(spec, context=make_context(tmp_path / "runs"))
    for i in range(30):
        write_picture(root / "a" / f"  before all {i}.png", 5000 + i)
        write_picture(root / "b" / f"zz {i}.png", 6000 + i)
    after = run(spec, context=make_context(tmp_path / "runs"))
    assert after.id != before.id
    assert set(before.train.paths) < set(after.train.paths)
    assert set(before.val.paths) <= set(after.val.paths)
    assert before.test.size <= after.test.size
    assert len(after.train) + len(after.val) + after.test.size == 160


def test_a_group_from_the_path_through_the_stage(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 60, "b": 40})
    spec = DataSpec.model_validate({"path": str(root), "split": {"by": "group", "group": r"(\d)\.png$"}})
    version = run(spec, context=make_context(tmp_path / "runs"))
    ends = [{path[-5] for path in part.paths} for part in (version.train, version.val)]
    assert not ends[0] & ends[1]
    assert all(ends)


# -- given splits keep precedence


@pytest.mark.parametrize("by", ["stratified", "group", "hash"])
def test_given_splits_stay(by: str) -> None:
    pictures = [replace(p, split=SPLITS[i % 3]) for i, p in enumerate(photos(90, groups=10))]
    division = split(pictures, by=by)
    assert division.splits == {p.path: p.split for p in pictures}


@pytest.mark.parametrize("by", ["group", "hash"])
def test_validation_is_cut_from_the_given_train_by_the_rule(by: str) -> None:
    pictures = photos(400, groups=40)
    given = [replace(p, split="test" if p.group in ("p1", "p2") else "train") for p in pictures]
    division = split(given, by=by)
    assert all(division.splits[p.path] == "test" for p in given if p.split == "test")
    assert all(len(homes) == 1 for homes in homes_of_groups(pictures, division).values())
    assert f"The data set gives no val (15%): cut from train, by {by}, seed 0." in division.notes


def test_given_splits_that_cut_groups_are_noted() -> None:
    pictures = [replace(p, split="test" if i % 5 == 0 else "train") for i, p in enumerate(photos(400, groups=40))]
    division = split(pictures, by="group")
    counts = [re.match(r"The given splits cut (\d+) groups, which may flatter", note) for note in division.notes]
    assert [30 < int(found[1]) <= 40 for found in counts if found] == [True]


def test_groups_that_are_not_kept_together_are_noted() -> None:
    notes = split(photos(400, groups=40)).notes
    assert len(notes) == 1
    assert re.match(r"\d\d groups lie in several splits.*split.by: group keeps them together$", notes[0])
    assert split(photos(400)).notes == []


def test_lists_that_cut_groups_are_noted(tmp_path: Path) -> None:
    pictures = photos(60, groups=6)
    spec = {}
    for i, name in enumerate(SPLITS):
        (tmp_path / f"{name}.txt").write_text("\n".join(p.path for p in pictures[i::3]))
        spec[f"{name}_list"] = str(tmp_path / f"{name}.txt")
    division = split(pictures, by="group", **spec)
    assert division.splits == {p.path: SPLITS[i % 3] for i, p in enumerate(pictures)}
    assert any(note.startswith("The given splits cut 6 groups") for note in division.notes)


def test_pictures_outside_given_splits_are_left_out_and_listed() -> None:
    pictures = [replace(p, split=SPLITS[i % 3] if i else None) for i, p in enumerate(photos(60))]
    division = split(pictures)
    assert division.unlisted == [pictures[0].path]
    assert pictures[0].path not in division.splits
    assert any("1 pictures are in no given split" in note for note in division.notes)


def test_a_picture_of_no_split_follows_its_twin() -> None:
    pictures = [replace(p, split="test" if i % 5 == 0 else None) for i, p in enumerate(photos(200))]
    twin = replace(pictures[0], path="twin.png", split=None)
    for by in ("stratified", "hash"):
        assert split([*pictures, twin], by=by).splits["twin.png"] == "test"
