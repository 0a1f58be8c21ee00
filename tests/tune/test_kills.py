"""Killed at random moments, driver and Ray together, a sweep comes to the same end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.kill_sweep import compare

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_killed_three_times_it_has_the_leaderboard_of_the_undisturbed_sweep(tmp_path: Path) -> None:
    found = compare(tmp_path, kills=3, trials=8, seed=1)
    facts = {name: found[name] for name in ("identical", "lost", "twice", "rewritten")}
    assert facts == {"identical": True, "lost": 0, "twice": 0, "rewritten": 0}
    assert found["kills"] >= 1
