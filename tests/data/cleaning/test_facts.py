"""Faults that need no pixels: files, classes, boxes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from autodl_ray.data.cleaning.boxes import clip_box
from autodl_ray.data.cleaning.cheap import cheap_findings
from autodl_ray.data.cleaning.findings import KINDS, Finding, finding
from autodl_ray.data.records import Box, Problem
from tests.data.cleaning.makers import boxed, subject_of


def of(found: list[Finding], kind: str) -> list[Finding]:
    return [item for item in found if item.kind == kind]


def many(prefix: str, label: str, count: int = 12) -> dict[str, tuple[str, str | None]]:
    return {f"{label}/{prefix}{i:02d}.png": (f"{label} {prefix} {i}", label) for i in range(count)}


def test_clean_data_has_no_findings() -> None:
    assert cheap_findings(subject_of({**many("a", "cat"), **many("b", "dog")})) == []


def test_unreadable_pictures_and_annotations_are_told_with_their_reason() -> None:
    subject = subject_of({**many("a", "cat"), **many("b", "dog")}, problems={"cat/a00.png": "It is truncated."})
    subject.listing.problems.append(Problem("dog.xml", "no such picture"))
    found = of(cheap_findings(subject), "unreadable")
    assert [(item.paths, item.reason, item.drop) for item in found] == [
        (("cat/a00.png",), "It is truncated.", ("cat/a00.png",)),
        (("dog.xml",), "no such picture", ()),
    ]
    assert all(item.severity == "error" and item.sure == 1.0 for item in found)


def test_identical_pictures_of_one_label_keep_the_first() -> None:
    pictures = {**many("a", "cat"), **many("b", "dog"), "cat/z.png": ("cat a 3", "cat")}
    found = of(cheap_findings(subject_of(pictures)), "duplicate")
    assert [(item.paths, item.drop) for item in found] == [(("cat/a03.png", "cat/z.png"), ("cat/z.png",))]


def test_identical_pictures_with_different_labels_are_an_error_and_both_would_go() -> None:
    pictures = {**many("a", "cat"), **many("b", "dog"), "dog/z.png": ("cat a 3", "dog")}
    found = cheap_findings(subject_of(pictures))
    (conflict,) = of(found, "conflict")
    assert conflict.drop == ("cat/a03.png", "dog/z.png")
    assert conflict.severity == "error"
    assert "labelled cat and dog" in conflict.reason
    assert not of(found, "duplicate")


def test_a_leak_is_settled_in_favour_of_the_split_that_is_protected_most() -> None:
    pictures = {
        **many("a", "cat"),
        **many("b", "dog"),
        "cat/y.png": ("cat a 3", "cat"),
        "cat/z.png": ("cat a 3", "cat"),
    }
    splits = dict.fromkeys(pictures, "train") | {"cat/y.png": "val", "cat/z.png": "test", "cat/a01.png": "val"}
    (leak,) = of(cheap_findings(subject_of(pictures, splits=splits)), "leak")  # type: ignore[arg-type]
    assert leak.paths == ("cat/a03.png", "cat/y.png", "cat/z.png")
    assert leak.drop == ("cat/a03.png", "cat/y.png")
    assert leak.splits == ("test", "train", "val")


def test_a_pair_that_leaks_and_contradicts_is_told_twice() -> None:
    pictures = {**many("a", "cat"), **many("b", "dog"), "dog/z.png": ("cat a 3", "dog")}
    splits = dict.fromkeys(pictures, "train") | {"dog/z.png": "test"}
    found = cheap_findings(subject_of(pictures, splits=splits))  # type: ignore[arg-type]
    assert len(of(found, "leak")) == len(of(found, "conflict")) == 1


def test_pictures_that_no_list_names_are_told() -> None:
    pictures = {**many("a", "cat"), **many("b", "dog")}
    splits = dict.fromkeys(list(pictures)[1:], "train")
    (item,) = of(cheap_findings(subject_of(pictures, splits=splits)), "unlisted")  # type: ignore[arg-type]
    assert item.paths == ("cat/a00.png",)


def test_small_unequal_and_unused_classes() -> None:
    pictures = {**many("a", "cat", 60), **many("b", "dog", 12), **many("c", "eel", 2)}
    found = cheap_findings(subject_of(pictures, classes=("cat", "dog", "eel", "fox")))
    (small,) = of(found, "small_class")
    assert (small.label, small.severity) == ("eel", "error")
    (unequal,) = of(found, "imbalance")
    assert "30.0 : 1" in unequal.reason
    assert "weights the classes" in unequal.reason
    (unused,) = of(found, "unused_class")
    assert unused.label == "fox"


def test_a_class_without_a_readable_picture_is_not_called_unused() -> None:
    pictures = {**many("a", "cat"), **many("b", "dog", 2)}
    bad = {path: "It is truncated." for path in pictures if path.startswith("dog")}
    found = cheap_findings(subject_of(pictures, problems=bad))
    assert not of(found, "unused_class")
    assert [item.reason for item in of(found, "small_class")] == ["No picture of the class 'dog' can be read."]


def test_a_class_that_train_lacks_is_an_error() -> None:
    pictures = {**many("a", "cat", 12), **many("b", "dog", 12)}
    splits = {path: "val" if path.startswith("dog") else "train" for path in pictures}
    found = of(cheap_findings(subject_of(pictures, splits=splits)), "small_class")  # type: ignore[arg-type]
    assert {(item.severity, item.splits) for item in found} == {("error", ("train",)), ("warning", ("val",))}


def test_mild_inequality_says_that_nothing_is_done() -> None:
    found = cheap_findings(subject_of({**many("a", "cat", 36), **many("b", "dog", 12)}))
    assert [item.severity for item in found] == ["info"]
    assert "leaves them as they are" in found[0].reason


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        (Box("a", 10, 10, 10, 40), "box_empty"),
        (Box("a", 40, 10, 10, 40), "box_inverted"),
        (Box("a", 120, 10, 140, 40), "box_empty"),
        (Box("a", float("nan"), 10, 40, 40), "box_empty"),
        (Box("a", 60, 10, 130, 40), "box_outside"),
        (Box("a", 60, 10, 62, 60), "box_tiny"),
        (Box("a", 60, 10, 100.5, 40), None),
        (Box("a", 0, 0, 100, 80), None),
    ],
)
def test_each_fault_of_a_box(box: Box, kind: str | None) -> None:
    usual = [Box("a", 5, 5, 50, 50)] * 1
    found = [item for item in cheap_findings(boxed({"p.png": [*usual, box]})) if item.kind.startswith("box_")]
    assert [item.kind for item in found] == ([] if kind is None else [kind])
    if kind is not None:
        assert (found[0].paths, found[0].box) == (("p.png",), 1)


def test_boxes_twice_in_one_place_and_pictures_without_any() -> None:
    same = Box("a", 10, 10, 50, 50)
    found = cheap_findings(boxed({"p.png": [same, Box("b", 10, 10, 50, 50), same._replace(xmax=50.5)], "q.png": []}))
    (twice,) = of(found, "box_duplicate")
    assert twice.box == 2
    (bare,) = of(found, "no_boxes")
    assert bare.paths == ("q.png",)


def test_a_clipped_box_lies_within_its_picture() -> None:
    assert clip_box(Box("a", 120, -5, 60, 40), 100, 80) == Box("a", 60, 0, 100, 40)
    assert clip_box(Box("a", 120, 10, 140, 40), 100, 80) is None


def test_a_finding_takes_severity_and_action_from_its_kind_and_tells_only_what_applies() -> None:
    item = finding("blank", ["a.png"], "empty", sure=0.987654)
    assert (item.severity, item.action) == (KINDS["blank"].severity, KINDS["blank"].action)
    assert item.to_json() == {
        "kind": "blank", "severity": "warning", "paths": ["a.png"], "reason": "empty", "sure": 0.9877, "action": "drop",
    }  # fmt: skip
    assert replace(item, drop=("a.png",)).to_json()["drop"] == ("a.png",)


def test_the_cheap_part_imports_no_heavy_library() -> None:
    heavy = ("torch", "sklearn", "cleanlab", "cleanvision", "pandas", "scipy", "ray")
    code = f"import sys; import autodl_ray.data.cleaning.cheap; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
