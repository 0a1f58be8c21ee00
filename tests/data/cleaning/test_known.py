"""Real data sets whose faults are known."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.cleaning.cheap import cheap_findings
from autodl_ray.data.cleaning.findings import Finding
from autodl_ray.data.cleaning.inspect import inspect
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.splits.lists import read_lists
from autodl_ray.runtime import Context
from autodl_ray.spec import SplitSpec
from tests.data.cleaning.makers import opened

_SHARED = Path(os.environ.get("AUTODL_SHARED", Path(__file__).parents[4] / "shared")) / "data"
_CONFLICTS = {
    ("glass/glass115.jpg", "metal/metal91.jpg"),
    ("glass/glass176.jpg", "plastic/plastic152.jpg"),
    ("glass/glass389.jpg", "plastic/plastic332.jpg"),
}


def _trashnet(context: Context) -> Subject:
    root = _SHARED / "trashnet"
    if not root.is_dir():
        pytest.skip(f"TrashNet is not at {root}")
    train, val, test = (
        str(root / "splits" / f"one-indexed-files-notrash_{name}.txt") for name in ("train", "val", "test")
    )
    subject = opened(root / "images", context)
    spec = SplitSpec(train_list=train, val_list=val, test_list=test)
    splits: dict[str, Split] = read_lists(spec, list(subject.position), root=subject.listing.root)
    return Subject(subject.listing, subject.facts, splits)


def _of(found: list[Finding], kind: str) -> set[tuple[str, ...]]:
    return {item.paths for item in found if item.kind == kind}


@pytest.mark.shared
def test_trashnet_has_three_contradicting_pairs_and_two_leaks(context: Context) -> None:
    found = cheap_findings(_trashnet(context))
    assert _of(found, "conflict") == _CONFLICTS
    assert _of(found, "leak") == _CONFLICTS - {("glass/glass115.jpg", "metal/metal91.jpg")}
    assert not _of(found, "unreadable")
    leaks = {item.drop for item in found if item.kind == "leak"}
    assert leaks == {("glass/glass176.jpg",), ("glass/glass389.jpg",)}


@pytest.mark.shared
def test_bccd_has_exactly_two_empty_boxes(context: Context) -> None:
    root = _SHARED / "bccd" / "BCCD"
    if not root.is_dir():
        pytest.skip(f"BCCD is not at {root}")
    found = cheap_findings(opened(root, context))
    faults = [item for item in found if item.kind.startswith("box_")]
    assert {item.paths[0].rsplit("/", 1)[-1] for item in faults} == {"BloodImage_00338.jpg", "BloodImage_00343.jpg"}
    assert [item.kind for item in faults] == ["box_empty"] * 2
    assert {item.kind for item in found} == {"box_empty", "imbalance"}


@pytest.mark.shared
@pytest.mark.slow
def test_everything_of_trashnet_is_checked_in_time_and_again_in_seconds(context: Context) -> None:
    started = time.process_time()
    subject = _trashnet(context)
    report = inspect(subject, source="trashnet", context=context)
    assert time.process_time() - started < 90  # of all threads: half of it on two cores
    assert _of(list(report.findings), "conflict") == _CONFLICTS
    assert report.model["features"] == "network"
    assert report.model["accuracy_out_of_fold"] > 0.85
    assert ("metal/metal120.jpg", "metal/metal50.jpg") in _of(list(report.findings), "near_leak")
    assert ("plastic/plastic118.jpg",) in _of(list(report.findings), "blurred")
    sealed = {path for path, split in subject.splits.items() if split == "test"}
    assert not {item.paths[0] for item in report.of("label")} & sealed
    started = time.process_time()
    again = inspect(subject, source="trashnet", context=context)
    assert again.findings == report.findings
    assert time.process_time() - started < 20
