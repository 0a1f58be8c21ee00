"""What is done about unequal classes belongs to a sweep: to its trials' configuration and to its identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autodl_ray.data.samples import write_digits
from autodl_ray.spec import TuneSpec
from autodl_ray.tune.stage import _Sweep
from tests.tune.driver import sweep_context, sweep_inputs

WEIGHTS = tuple(0.5 + i / 9 for i in range(10))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"), n=80)


def sweep(digits: Path, folder: Path, **changes: Any) -> _Sweep:
    inputs = sweep_inputs(digits, num_samples=2, train=50, **changes)
    return _Sweep.of(TuneSpec(search="random"), inputs, "sweep", sweep_context(folder))


def test_it_reaches_the_trials(digits: Path, tmp_path: Path) -> None:
    config = sweep(digits, tmp_path, class_weights=WEIGHTS, balanced=True).settings({"lr": 1e-3})
    assert (config.class_weights, config.balanced) == (WEIGHTS, True)
    plain = sweep(digits, tmp_path).settings({"lr": 1e-3})
    assert (plain.class_weights, plain.balanced) == (None, False)


def test_it_is_in_the_digest(digits: Path, tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [{}, {"class_weights": WEIGHTS}, {"class_weights": WEIGHTS[::-1]}, {"balanced": True}]
    assert len({sweep(digits, tmp_path, **way).digest for way in ways}) == 4
    assert (
        sweep(digits, tmp_path, class_weights=WEIGHTS).digest == sweep(digits, tmp_path, class_weights=WEIGHTS).digest
    )
