"""Faults that models find: wrong labels and outliers; what is sealed stays unseen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.cleaning import model
from autodl_ray.data.cleaning.deep import Backbone
from autodl_ray.data.cleaning.findings import Finding
from autodl_ray.data.cleaning.inspect import inspect
from autodl_ray.data.cleaning.labels import chance_of_error, settle_conflicts
from autodl_ray.data.cleaning.measures import measure
from autodl_ray.data.cleaning.model import FOLDS, Judgement, deal_folds, group_numbers, judge, neighbours
from autodl_ray.data.cleaning.outliers import find_outliers
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.samples import write_digits
from autodl_ray.runtime import Context
from tests.data.cleaning.makers import opened, save, scene, subject_of
from tests.data.conftest import make_context


@pytest.fixture(scope="module")
def shared_context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return make_context(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, shared_context: Context) -> Subject:
    return opened(write_digits(tmp_path_factory.mktemp("digits"), n=600), shared_context)


def flipped(subject: Subject, seed: int, count: int = 20) -> tuple[Subject, set[str]]:
    """Give some pictures another label at random."""
    rng = np.random.default_rng(seed)
    names = subject.classes
    records = list(subject.listing.records)
    for i in rng.choice(len(records), count, replace=False).tolist():
        other = names[(names.index(str(records[i].label)) + int(rng.integers(1, len(names)))) % len(names)]
        records[i] = records[i]._replace(label=other)
    wrong = {new.path for new, old in zip(records, subject.listing.records, strict=True) if new.label != old.label}
    return replace(subject, listing=replace(subject.listing, records=records)), wrong


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_flipped_labels_are_listed_first(digits: Subject, shared_context: Context, seed: int) -> None:
    subject, wrong = flipped(digits, seed)
    report = inspect(subject, source="digits", context=shared_context)
    listed = report.of("label")
    assert len({item.paths[0] for item in listed[:30]} & wrong) >= 16
    assert len(listed) <= 40
    warned = [item for item in listed if item.severity == "warning"]
    assert sum(item.paths[0] in wrong for item in warned) >= 0.8 * len(warned)
    assert [item.sure for item in listed] == sorted((item.sure for item in listed), reverse=True)
    assert report.model["features"] == max(report.model["tried"], key=report.model["tried"].get)
    assert set(report.model["tried"]) == {"network", "gradients", "pixels"}


def test_right_labels_are_left_alone(digits: Subject, shared_context: Context) -> None:
    report = inspect(digits, source="digits", context=shared_context)
    assert len([item for item in report.of("label") if item.severity == "warning"]) <= 3
    assert any("not divided yet" in note for note in report.notes)


def test_the_same_data_and_seed_give_the_same_report(digits: Subject, shared_context: Context) -> None:
    one, two = (inspect(flipped(digits, 5)[0], source="d", context=shared_context) for _ in range(2))
    assert one.findings == two.findings


def test_no_model_looks_at_the_sealed_test_split(digits: Subject, shared_context: Context) -> None:
    subject, wrong = flipped(digits, 0)
    splits: dict[str, Split] = {path: "test" if path in wrong else "train" for path in subject.position}
    report = inspect(replace(subject, splits=splits), source="digits", context=shared_context)
    assert report.model["pictures"] == 580
    assert not {path for item in report.of("label") + report.of("outlier") for path in item.paths} & wrong
    assert any("The test split is sealed" in note for note in report.notes)


def test_no_features_are_computed_of_the_test_split(tmp_path: Path, context: Context) -> None:
    for number in range(6):
        save(scene(number), tmp_path / "photos" / ("a" if number % 2 else "b") / f"{number}.png")
    first = (tmp_path / "photos" / "b" / "0.png").read_bytes()
    (tmp_path / "photos" / "b" / "6.png").write_bytes(first)  # the test picture's copy in train has features
    seen: list[int] = []

    def run(images: np.ndarray) -> np.ndarray:
        seen.extend(int(image.sum()) for image in images)
        return np.ones((len(images), 3), dtype=np.float32)

    subject = opened(tmp_path / "photos", context)
    splits: dict[str, Split] = dict.fromkeys(subject.position, "train") | {"b/0.png": "test", "a/1.png": "test"}
    backbone = Backbone("fake", 3, 32, lambda: run)
    found, _ = measure(replace(subject, splits=splits), range(7), backbone=backbone, context=context)
    rows = {record.path: row for row, record in enumerate(subject.listing.records)}
    assert len(seen) == 5
    assert not found.deep[[rows["b/0.png"], rows["a/1.png"]]].any()
    assert found.deep[[row for path, row in rows.items() if splits[path] == "train"]].all()
    assert (found.copies.reshape(7, -1).max(axis=1) > 0).all()


def test_small_data_and_single_classes_are_checked_without_models(digits: Subject, shared_context: Context) -> None:
    few = replace(digits, listing=replace(digits.listing, records=digits.listing.records[:30]), facts=digits.facts[:30])
    report = inspect(few, source="digits", context=shared_context)
    assert not report.of("label")
    assert report.model == {}
    assert any("Label errors were not looked for" in note for note in report.notes)


def test_fast_leaves_models_out(digits: Subject, shared_context: Context) -> None:
    report = inspect(digits, source="digits", context=shared_context, fast=True)
    assert report.model == {}
    assert any(note.startswith("Fast:") for note in report.notes)


def test_folds_are_even_in_each_class_and_keep_groups_whole() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 500)
    groups = np.arange(500)
    groups[1::2] = groups[::2]
    labels[1::2] = labels[::2]
    folds = deal_folds(labels, groups, seed=0)
    assert (folds[1::2] == folds[::2]).all()
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=FOLDS)
        assert counts.max() - counts.min() <= 2


def test_groups_join_equal_and_similar_rows() -> None:
    assert group_numbers(["a", "b", "a", "c", "d"], [[2, 3]]).tolist() == [0, 1, 0, 0, 4 - 1]


def test_neighbours_are_of_other_groups() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)).astype(np.float32)
    features[30:] = features[:30]
    groups = np.tile(np.arange(30), 2)
    distances, rows = neighbours(features, groups)
    assert rows.shape == (60, 10)
    assert (groups[rows] != groups[:, None]).all()
    assert (distances > 0).all()


def test_equal_pictures_do_not_vote_for_each_other() -> None:
    """Two copies with a wrong label: left in, each would call the other right."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 60)
    features = (rng.normal(size=(120, 8)) + 3 * labels[:, None] * np.eye(8)[0]).astype(np.float32)
    features[1] = features[0]
    labels[:2] = 1
    groups = np.arange(120)
    groups[1] = 0
    apart = judge({"f": features.__getitem__}, labels, np.arange(120), num_classes=2, seed=0).probabilities[:2, 1]
    together = judge({"f": features.__getitem__}, labels, groups, num_classes=2, seed=0).probabilities[:2, 1]
    assert (together < apart).all()
    assert (together < 0.5).all()


def test_a_chance_of_error_counts_how_rare_errors_are() -> None:
    given, suggested = np.array([0.5, 0.1, 0.01]), np.array([0.5, 0.9, 0.99])
    chance = chance_of_error(given, suggested)
    np.testing.assert_allclose(chance, [0.034, 0.2406, 0.777], atol=2e-3)


def test_a_conflict_is_settled_only_where_the_models_are_sure_and_nothing_is_sealed() -> None:
    pictures: dict[str, tuple[str, str | None]] = {"a/1.png": ("x", "a"), "b/1.png": ("x", "b")}
    subject = subject_of(pictures)

    def settled(belief: float, subject: Subject, positions: list[int]) -> Finding:
        from autodl_ray.data.cleaning.cheap import cheap_findings

        found = [item for item in cheap_findings(subject) if item.kind == "conflict"]
        beliefs = np.array([[1 - belief, belief]] * len(positions))
        none = np.zeros((len(positions), 1), dtype=np.int64)
        judgement = Judgement("f", 0.9, {}, beliefs, none[:, 0].astype(float), none)
        return settle_conflicts(found, subject, positions, ["a", "b"], judgement)[0]

    sure = settled(0.95, subject, [0, 1])
    assert sure.drop == ("a/1.png",)
    assert sure.label == "b"
    assert "b/1.png would stay" in sure.reason
    assert settled(0.7, subject, [0, 1]).drop == ("a/1.png", "b/1.png")
    sealed = subject_of(pictures, splits={"a/1.png": "train", "b/1.png": "test"})
    assert settled(0.95, sealed, [0]).drop == ("a/1.png", "b/1.png")


def test_an_outlier_is_far_from_all() -> None:
    distances = np.r_[np.random.default_rng(0).normal(1.0, 0.05, 60), 2.5]
    subject = subject_of({f"{i:02d}.png": (str(i), "a") for i in range(61)})
    found = list(find_outliers(subject, range(61), distances, features="network"))
    assert found[0].paths == ("60.png",)
    assert found[0].sure > 0.9
    assert "2.5 times as far" in found[0].reason
    assert len(found) <= 2


def test_of_very_many_pictures_the_features_are_chosen_on_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_MANY", 200)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    good = (rng.normal(size=(400, 6)) + 4 * np.eye(6)[labels]).astype(np.float32)
    noise = rng.normal(size=(400, 6)).astype(np.float32)
    asked: dict[str, set[int]] = {"good": set(), "noise": set()}

    def table(name: str, values: np.ndarray) -> model.Table:
        def of(rows: np.ndarray) -> np.ndarray:
            asked[name].update(rows.tolist())
            return values[rows]

        return of

    tables = {"noise": table("noise", noise), "good": table("good", good)}
    judgement = judge(tables, labels, np.arange(400), num_classes=3, seed=0)
    assert judgement.features == "good"
    assert judgement.probabilities.shape == (400, 3)
    assert judgement.accuracy > 0.95
    assert judgement.tried["noise"] < 0.6
    assert len(asked["good"]) == 400
    assert len(asked["noise"]) <= 101


def test_models_that_cannot_tell_the_classes_apart_say_nothing_about_labels(tmp_path: Path, context: Context) -> None:
    for number in range(60):
        save(scene(number, size=(40, 40)), tmp_path / "photos" / ("a" if number % 2 else "b") / f"{number}.png")
    report = inspect(opened(tmp_path / "photos", context), source="photos", context=context)
    assert report.of("label") == []
    assert any(note.startswith("The models cannot tell these classes apart") for note in report.notes)
