"""Which factors differ between runs, when a warning is due, and where the interval of a difference comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autodl_ray.pipeline.history import open_run
from autodl_ray.pipeline.history.compare import Comparison, compare
from tests.pipeline.history.made import spec_of, write_run


def answers(wrong: set[int], number: int = 40) -> list[tuple[str, str, str]]:
    rows = []
    for i in range(number):
        true = "ab"[i % 2]
        rows.append((f"p{i}.png", true, {"a": "b", "b": "a"}[true] if i in wrong else true))
    return rows


def repeats(*values: float) -> dict[str, Any]:
    return {"repeat": {"line": "", "replicates": [{"replicate": i, "accuracy": v} for i, v in enumerate(values)]}}


def compared(store: Path, *names: str) -> Comparison:
    return compare([open_run(store, name) for name in names])


def test_one_factor_is_named_and_gives_no_warning(tmp_path: Path) -> None:
    write_run(tmp_path, "a", spec=spec_of(name="a", repeat=3, train={"lr": 0.01}), facts=repeats(0.90, 0.91, 0.92))
    changed = spec_of(name="b", repeat=3, train={"lr": 0.1}, serve={"port": 9000})
    write_run(tmp_path, "b", spec=changed, params={"lr": 0.1}, facts=repeats(0.80, 0.81, 0.82))
    found = compared(tmp_path, "a", "b")
    assert [(f.name, f.kind, f.values) for f in found.factors] == [("train.lr", "spec", (0.01, 0.1))]
    assert found.warnings == ()


def test_more_than_one_factor_is_a_warning_that_names_them(tmp_path: Path) -> None:
    write_run(tmp_path, "a", spec=spec_of(seed=0))
    write_run(tmp_path, "b", spec=spec_of(seed=1, train={"augment": "none"}), params={"lr": 0.02}, dataset="e" * 32)
    found = compared(tmp_path, "a", "b")
    assert {f.name for f in found.factors} == {"seed", "train.augment", "data", "winner.lr"}
    assert {f.kind for f in found.factors} == {"spec", "data", "winner"}
    assert found.warnings[0].startswith("4 factors differ (seed, train.augment, data, winner.lr): ")
    assert "change one at a time" in found.warnings[0]
    assert found.warnings[1] == "the data differ: scores on other pictures are not comparable"


def test_equal_runs_differ_in_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path, name, spec=spec_of(name=name))
    found = compared(tmp_path, "a", "b")
    assert (found.factors, found.warnings) == ((), ())


def test_repeats_give_welchs_interval_over_seeds(tmp_path: Path) -> None:
    write_run(tmp_path, "a", facts=repeats(0.90, 0.91, 0.92))
    write_run(tmp_path, "b", facts=repeats(0.95, 0.97, 0.96))
    row = compared(tmp_path, "a", "b").differences[0]
    assert (row.split, row.metric) == ("validation", "accuracy")
    assert row.this - row.first == pytest.approx(0.05)
    assert row.interval is not None
    assert "Welch's t over seeds (3 and 3)" in row.interval.method
    assert row.interval.is_clear
    assert row.interval.low < 0.05 < row.interval.high


def test_without_repeats_the_validation_score_has_no_interval_and_the_way_to_one_is_told(tmp_path: Path) -> None:
    write_run(tmp_path, "a", facts=repeats(0.90, 0.91, 0.92))
    write_run(tmp_path, "b")
    row = compared(tmp_path, "a", "b").differences[0]
    assert row.interval is None
    assert row.why_none == "one seed of b: run the same line again with --repeat 3 for an interval over seeds"


def test_the_same_test_pictures_give_a_paired_interval(tmp_path: Path) -> None:
    write_run(tmp_path, "a", answers=answers(set(range(12))))
    write_run(tmp_path, "b", answers=answers({0, 1}))
    rows = [row for row in compared(tmp_path, "a", "b").differences if row.split == "test"]
    assert [row.metric for row in rows] == ["accuracy", "macro_f1"]
    accuracy = rows[0].interval
    assert accuracy is not None
    assert accuracy.value == pytest.approx(0.25)
    assert accuracy.p_value == pytest.approx(2 * 0.5**10)
    assert accuracy.is_clear
    assert "same 40 test pictures" in accuracy.method


def test_equal_answers_are_no_proof_of_equality(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path, name, answers=answers({3}))
    row = next(r for r in compared(tmp_path, "a", "b").differences if r.split == "test" and r.metric == "accuracy")
    assert row.interval is not None
    assert row.interval.low < -0.02
    assert row.interval.high > 0.02
    assert not row.interval.is_clear


def test_other_test_pictures_give_none(tmp_path: Path) -> None:
    write_run(tmp_path, "a", answers=answers(set()))
    write_run(tmp_path, "b", answers=answers(set(), number=30))
    rows = [row for row in compared(tmp_path, "a", "b").differences if row.split == "test"]
    assert all(row.interval is None and "test splits differ" in row.why_none for row in rows)


def test_three_runs_are_compared_with_the_first(tmp_path: Path) -> None:
    for name, accuracy in (("a", 0.9), ("b", 0.8), ("c", 0.7)):
        write_run(tmp_path, name, accuracy=accuracy)
    found = compared(tmp_path, "a", "b", "c")
    assert [(row.run, round(row.this - row.first, 3)) for row in found.differences] == [("b", -0.1), ("c", -0.2)]
