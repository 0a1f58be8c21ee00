"""Which file is delivered under limits: worked examples, and what must hold for any table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_ray.artifacts import Store
from autodl_ray.pipeline.objectives import Measured, choose, dominated, table
from autodl_ray.pipeline.result import RunResult


def row(source: str, accuracy: float, latency_ms: float, size_mb: float, variant: str = "fp32") -> Measured:
    return Measured(source, variant, accuracy, accuracy - 0.1, latency_ms, size_mb)


BIG, SMALL, SLOW = row("train", 0.95, 20.0, 12.0), row("train", 0.93, 8.0, 3.0, "int8"), row("quick", 0.90, 25.0, 12.0)


def test_the_best_score_within_the_limits_wins() -> None:
    chosen = choose([BIG, SMALL, SLOW], {"latency_ms": 10.0}, "accuracy")
    assert (chosen.index, chosen.met) == (1, True)
    assert chosen.line == "train as INT8 keeps the limits: latency 8 ms (at most 10)"
    assert choose([BIG, SMALL, SLOW], {"latency_ms": 30.0}, "accuracy").index == 0
    assert choose([BIG, SMALL, SLOW], {"latency_ms": 30.0, "size_mb": 5.0}, "accuracy").index == 1


def test_where_none_keeps_them_the_nearest_is_taken_and_that_is_said() -> None:
    chosen = choose([BIG, SMALL, SLOW], {"latency_ms": 4.0, "size_mb": 1.0}, "accuracy")
    assert (chosen.index, chosen.met) == (1, False)
    assert chosen.line == (
        "no model keeps the limits; train as INT8 comes nearest: latency 8 ms (at most 4), size 3 MB (at most 1)"
    )


def test_equal_scores_go_to_the_faster_one() -> None:
    slow, fast = row("train", 0.9, 9.0, 1.0), row("sweep t0001", 0.9, 5.0, 2.0)
    assert choose([slow, fast], {"latency_ms": 10.0}, "accuracy").index == 1


def test_a_row_behind_another_in_everything_is_dominated() -> None:
    assert dominated([BIG, SMALL, SLOW], "accuracy") == [False, False, True]
    assert dominated([BIG, BIG], "accuracy") == [False, False]


def test_the_table_is_sorted_and_marks_the_chosen_one() -> None:
    limits = {"latency_ms": 10.0}
    rows = table([SLOW, SMALL, BIG], choose([SLOW, SMALL, BIG], limits, "accuracy"), limits=limits, metric="accuracy")
    assert [(r["source"], r["variant"], r["chosen"], r["keeps_limits"], r["dominated"]) for r in rows] == [
        ("train", "fp32", False, False, False),
        ("train", "int8", True, True, False),
        ("quick", "fp32", False, False, True),
    ]


_rows = st.lists(
    st.builds(row, st.just("x"), st.floats(0, 1), st.floats(0.1, 100), st.floats(0.1, 100)), min_size=1, max_size=8
)


@given(_rows, st.floats(0.1, 100), st.floats(0.1, 100))
def test_for_any_table(rows: list[Measured], latency_ms: float, size_mb: float) -> None:
    limits = {"latency_ms": latency_ms, "size_mb": size_mb}
    chosen = choose(rows, limits, "accuracy")
    keeps = [r.latency_ms <= latency_ms and r.size_mb <= size_mb for r in rows]
    assert chosen.met is any(keeps)
    if chosen.met:
        assert keeps[chosen.index]
        best = max(r.accuracy for r, k in zip(rows, keeps, strict=True) if k)
        assert abs(rows[chosen.index].accuracy - best) < 1e-5
    assert not all(dominated(rows, "accuracy"))


@pytest.mark.parametrize(
    ("facts", "said"),
    [({}, None), ({"limits": {"met": True, "line": "kept"}}, None), ({"limits": {"met": False, "line": "not"}}, "not")],
)
def test_a_result_says_which_limits_it_misses(tmp_path: Path, facts: dict[str, Any], said: str | None) -> None:
    store = Store(tmp_path)
    with store.write("run/bundle", kind="bundle", spec_digest="", inputs={}, seed=0, meta={"model": "m"}) as writer:
        (writer.path / "bundle.json").write_text('{"int8": null}')
    found = store.find("run/bundle")
    assert found is not None
    result = RunResult("run", tmp_path, "d", found, found, (), "train", 1.0, facts=facts)
    assert result.missed_limits == said
    assert result.to_json().get("limits") == facts.get("limits")
