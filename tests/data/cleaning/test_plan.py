"""What a cleaned version leaves out and changes, and how it is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.cleaning.apply import apply_plan
from autodl_ray.data.cleaning.cheap import cheap_findings
from autodl_ray.data.cleaning.findings import Finding, Report, finding
from autodl_ray.data.cleaning.inspect import inspect
from autodl_ray.data.cleaning.plan import DEFAULT_DROP, Plan, make_plan, parse_drop
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.records import Box
from autodl_ray.data.versions import Refs, open_listing
from autodl_ray.data.versions.keeping import FINDINGS
from autodl_ray.data.versions.opening import artifact_of
from autodl_ray.errors import SpecError
from autodl_ray.runtime import Context
from tests.data.cleaning.makers import boxed, opened, save, scene, subject_of


def report_of(subject: Subject, *more: Finding) -> Report:
    found = (*cheap_findings(subject), *more)
    return Report("here", "test", len(subject.listing.records), subject.classes, {}, found)


def planned(subject: Subject, *more: Finding, drop: str | None = None, relabel: float | None = None) -> Plan:
    return make_plan(report_of(subject, *more), subject, drop=parse_drop(drop), relabel=relabel)


def paths(plan: Plan) -> list[str]:
    return [record.path for record in plan.records]


PICTURES: dict[str, tuple[str, str | None]] = {
    "cat/1.png": ("one", "cat"),
    "cat/2.png": ("one", "cat"),
    "cat/3.png": ("three", "cat"),
    "dog/1.png": ("three", "dog"),
    "dog/2.png": ("broken", "dog"),
    "dog/3.png": ("fine", "dog"),
}


def test_the_default_acts_on_facts_alone() -> None:
    subject = subject_of(PICTURES, problems={"dog/2.png": "It is truncated."})
    guesses = (
        finding("label", ["dog/3.png"], "looks like cat", sure=1.0, label="cat"),
        finding("blank", ["dog/3.png"], "empty", drop=("dog/3.png",)),
        finding("near_leak", ["dog/3.png", "cat/1.png"], "alike", drop=("cat/1.png",)),
    )
    plan = planned(subject, *guesses)
    assert paths(plan) == ["cat/1.png", "dog/3.png"]
    assert plan.counts() == {"drop": 4}
    assert [change.path for change in plan.changes] == ["cat/2.png", "cat/3.png", "dog/1.png", "dog/2.png"]
    assert all(change.reason for change in plan.changes)


def test_a_leak_stays_in_test() -> None:
    splits: dict[str, Split] = dict.fromkeys(PICTURES, "train") | {"cat/2.png": "test"}
    plan = planned(subject_of(PICTURES, splits=splits), drop="exact")
    assert "cat/2.png" in paths(plan)
    assert "cat/1.png" not in paths(plan)


def test_only_what_is_named_is_dropped() -> None:
    subject = subject_of(PICTURES, problems={"dog/2.png": "It is truncated."})
    dark = finding("dark", ["dog/3.png"], "dark")
    assert paths(planned(subject, dark, drop="unreadable")) == [p for p in PICTURES if p != "dog/2.png"]
    assert "dog/3.png" not in paths(planned(subject, dark, drop="unreadable,dark"))
    assert "dog/3.png" in paths(planned(subject, dark))


def test_labels_change_only_where_asked_for_and_sure() -> None:
    subject = subject_of(PICTURES)
    sure = finding("label", ["dog/3.png"], "looks like cat", sure=0.97, label="cat")
    unsure = finding("label", ["dog/2.png"], "looks like cat", sure=0.7, label="cat", action="keep")
    gone = finding("label", ["dog/1.png"], "looks like cat", sure=0.99, label="cat")
    plan = planned(subject, sure, unsure, gone, relabel=0.6)
    assert {change.path: (change.what, change.before, change.after) for change in plan.changes if change.before} == {
        "dog/3.png": ("relabel", "dog", "cat")
    }
    assert next(record.label for record in plan.records if record.path == "dog/3.png") == "cat"
    assert planned(subject, sure, relabel=0.98).counts() == {"drop": 3}


def test_an_emptied_class_and_a_changed_test_split_are_said_beforehand() -> None:
    pictures: dict[str, tuple[str, str | None]] = {"cat/1.png": ("one", "cat"), "dog/1.png": ("broken", "dog")}
    splits: dict[str, Split] = {"cat/1.png": "train", "dog/1.png": "test"}
    plan = planned(subject_of(pictures, splits=splits, problems={"dog/1.png": "truncated"}))
    assert plan.notes == (
        "Nothing is left of the classes: dog.",
        "1 changes are in the test split: results before and after are not comparable.",
    )


def test_boxes_are_removed_turned_and_cut() -> None:
    subject = boxed(
        {
            "p.png": [
                Box("a", 5, 5, 50, 50),
                Box("a", 9, 9, 9, 40),
                Box("b", 90, 60, 60, 20),
                Box("b", 80, 10, 130, 40),
            ],
            "q.png": [Box("a", 10, 10, 10, 10)],
            "r.png": [Box("a", 1, 1, 30, 30), Box("a", 1, 1, 30, 30)],
        }
    )
    plan = planned(subject)
    assert plan.records[0].boxes == (Box("a", 5, 5, 50, 50), Box("b", 60, 20, 90, 60), Box("b", 80, 10, 100, 40))
    assert plan.records[1].boxes == ()
    assert plan.records[2].boxes == (Box("a", 1, 1, 30, 30),) * 2  # no error, and not asked for
    assert plan.counts() == {"remove_box": 2, "turn_box": 1, "clip_box": 1}
    assert plan.notes == ("1 pictures lose their last box and become background: q.png.",)
    assert planned(subject, drop="boxes").records[2].boxes == (Box("a", 1, 1, 30, 30),)


def test_nothing_to_do_changes_nothing() -> None:
    subject = subject_of({"cat/1.png": ("one", "cat"), "dog/1.png": ("two", "dog")})
    plan = planned(subject)
    assert plan.changes == ()
    assert list(plan.records) == subject.listing.records


def test_unknown_kinds_are_refused_with_near_names() -> None:
    with pytest.raises(SpecError, match="This cannot be dropped") as caught:
        parse_drop("exact,blurry")
    assert caught.value.seen == "--drop blurry"
    assert "blurred" in str(caught.value.hint)
    with pytest.raises(SpecError, match="This cannot be dropped"):
        parse_drop("imbalance")
    assert parse_drop(None) == DEFAULT_DROP
    assert parse_drop("exact, blank") == ("duplicate", "leak", "conflict", "blank")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for number in range(16):
        save(scene(number, size=(48, 40)), root / ("cat" if number % 2 else "dog") / f"{number:02d}.png")
    (root / "cat" / "copy.png").write_bytes((root / "cat" / "01.png").read_bytes())
    (root / "dog" / "bad.png").write_bytes(b"no picture")
    return root


def test_a_cleaned_version_has_a_parent_and_a_list_of_changes_and_the_folder_is_untouched(
    folder: Path, context: Context
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    subject = opened(folder, context)
    plan = make_plan(inspect(subject, source="photos", context=context, fast=True), subject)
    done = apply_plan(plan, subject, context=context, name="photos", tag="clean")
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before

    refs = Refs(context.store)
    entry = refs.resolve("clean")
    assert (entry.version, entry.parent, entry.name) == (done.version, done.parent, "photos")
    assert entry.message == "cleaned: drop 2"
    findings = json.loads(artifact_of(entry, store=context.store).file(FINDINGS).read_text())
    assert findings["cleaned_from"] == done.parent
    assert [(c["path"], c["what"], c["kind"]) for c in findings["changes"]] == [
        ("cat/copy.png", "drop", "duplicate"),
        ("dog/bad.png", "drop", "unreadable"),
    ]
    cleaned = open_listing("clean", store=context.store)
    whole = open_listing(done.parent, store=context.store)
    assert {r.path for r in whole.records} - {r.path for r in cleaned.records} == {"cat/copy.png", "dog/bad.png"}
    assert all(cleaned.read(r) == (folder / r.path).read_bytes() for r in cleaned.records)
    assert {r.split for r in cleaned.records} == {"train", "val", "test"}


def test_cleaning_a_version_makes_its_child(folder: Path, context: Context) -> None:
    subject = opened(folder, context)
    plan = make_plan(inspect(subject, source="photos", context=context, fast=True), subject, drop=("unreadable",))
    first = apply_plan(plan, subject, context=context, name="photos")
    other = apply_plan(Plan((), plan.records, plan.positions), subject, context=context, name="photos", parent="0" * 32)
    assert other.version == first.version  # equal content is one version, however it came about
    listing = open_listing(first.version, store=context.store)
    again = Subject(listing, [subject.facts[subject.position[r.path]] for r in listing.records],
                    {r.path: r.split for r in listing.records if r.split})  # fmt: skip
    report = inspect(again, source="version", context=context, fast=True, version=first.version)
    second = apply_plan(make_plan(report, again), again, context=context, name="photos", parent=first.version)
    assert second.parent == first.version
    kept = {r.path: r.split for r in open_listing(second.version, store=context.store).records}
    assert kept == {r.path: r.split for r in listing.records if r.path != "cat/copy.png"}


def test_a_file_that_cannot_be_opened_is_in_neither_version(folder: Path, context: Context) -> None:
    (folder / "dog" / "gone.png").symlink_to(folder / "dog" / "nowhere.png")
    subject = opened(folder, context)
    plan = make_plan(inspect(subject, source="photos", context=context, fast=True), subject)
    done = apply_plan(plan, subject, context=context, name="photos")
    for version in (done.version, done.parent):
        assert "dog/gone.png" not in {r.path for r in open_listing(version, store=context.store).records}
