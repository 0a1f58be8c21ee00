"""A small run of the benchmark of search efficiency, on learning curves of real data sets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.efficiency_sweeps import REFERENCE_EPOCHS, Cell, Surrogate, run_cell
from tests.benchmarks.search_efficiency import summarise

_SHARED = Path(os.environ.get("AUTODL_SHARED", Path(__file__).parents[3].parent / "shared"))
_FOLDER = _SHARED / "data" / "lcbench-surrogate"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not (_FOLDER / "model.onnx").exists(), reason="no shared/data/lcbench-surrogate"),
]


def test_a_model_of_curves_is_far_cheaper_than_random_search() -> None:
    surrogate = Surrogate.open(_FOLDER)
    shares = {}
    for combination in ("random+none", "curves+freeze_thaw"):
        cells = [Cell(combination, task, seed, 1) for task in ("3945", "189906") for seed in (0, 1)]
        results = {cell.name: run_cell(surrogate, cell, ()) for cell in cells}
        shares[combination] = summarise(cells, results)[combination]["mean"]
    assert shares["curves+freeze_thaw"] < 0.5 * shares["random+none"]


def test_several_workers_share_a_search() -> None:
    surrogate = Surrogate.open(_FOLDER)
    result = run_cell(surrogate, Cell("curves+freeze_thaw", "189906", 0, 4), ())
    assert result["share"] < 1.0


def test_the_reference_is_what_random_search_finds() -> None:
    surrogate = Surrogate.open(_FOLDER)
    result = run_cell(surrogate, Cell("random+none", "3945", 5, 1), ())
    reference = surrogate.reference("3945", 5)
    trial = int(np.argmax(reference))
    assert trial * 50 < result["share"] * REFERENCE_EPOCHS <= (trial + 1) * 50
    assert result["regret"][-1] == 0.0
