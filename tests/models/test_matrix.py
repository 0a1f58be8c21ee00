"""The table of `autodl models` is what exports give now: made again here for the small networks."""

from __future__ import annotations

import pytest

from autodl_ray.export.formats import FORMATS
from autodl_ray.models.matrix import read_matrix
from autodl_ray.models.zoo import ZOO
from tests.benchmarks.model_matrix import make_matrix

SMALL = ("pixels", "small_cnn")
AGAIN = "stale: run `python -m tests.benchmarks.model_matrix --write`"


def test_every_model_and_format_is_there_and_made() -> None:
    matrix = read_matrix()
    assert list(matrix) == list(ZOO), AGAIN
    for name, cells in matrix.items():
        assert set(cells) == {"onnx", *FORMATS, "int8"}, AGAIN
        missing = [form for form, cell in cells.items() if not cell.made]
        assert not missing, f"{name} is not made as {missing}"
        assert all(0 < c.max_difference < 1e-3 for c in cells.values() if c.max_difference is not None)


@pytest.mark.slow
def test_the_small_networks_come_out_as_the_table_says() -> None:
    fresh, kept = make_matrix(SMALL)["models"], read_matrix()
    for name in SMALL:
        for form, cell in fresh[name]["cells"].items():
            assert cell["made"] == kept[name][form].made, f"{name} as {form}: {AGAIN}"
            if form == "int8":  # "3.2 times smaller", rounded
                assert times(cell["how"]) == pytest.approx(times(kept[name][form].how), rel=0.04), f"{name}: {AGAIN}"
            else:
                assert cell["how"] == kept[name][form].how, f"{name} as {form}: {AGAIN}"


def times(how: str) -> float:
    return float(how.removesuffix(" times smaller"))
