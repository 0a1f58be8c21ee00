"""The climb from candidates: it reaches corners, and moves only what may be moved."""

from __future__ import annotations

import numpy as np
import pytest

from autodl_ray.spec.domains import Domain, Float, Int
from autodl_ray.tune.curves.climb import climbed
from autodl_ray.tune.space import Encoding, is_inside
from tests.tune.curves.curves import MIXED


def test_an_optimum_outside_of_the_ranges_is_met_at_their_corner() -> None:
    space: dict[str, Domain] = {"a": Float(low=1e-4, high=1.0, log=True), "b": Int(low=8, high=256, log=True)}
    start = {"a": 0.1, "b": 16}
    encoding = Encoding(space)
    found = climbed(
        [start],
        encoding.encode_all([start]),
        lambda points: points[:, 0] - points[:, 1],
        space=space,
        encoding=encoding,
        rng=np.random.default_rng(0),
    )
    assert found == {"a": 1.0, "b": 8}


@pytest.mark.parametrize("optimizer", [1.0, -1.0])
def test_choices_and_what_is_not_active_stay_as_they_are(optimizer: float) -> None:
    starts = [
        {"batch_size": 32, "lr": 0.01, "optimizer": "adamw"},
        {"batch_size": 64, "lr": 0.1, "momentum": 0.5, "optimizer": "sgd"},
    ]
    encoding = Encoding(MIXED)
    points = encoding.encode_all(starts)
    found = climbed(
        starts,
        points,
        lambda p: optimizer * p[:, encoding.first["optimizer"]] + 0.1 * p[:, encoding.first["lr"]],
        space=MIXED,
        encoding=encoding,
        rng=np.random.default_rng(1),
    )
    assert found["optimizer"] == ("adamw" if optimizer > 0 else "sgd")
    assert is_inside(MIXED, found)
    assert found["lr"] > 0.2


def test_a_number_on_which_another_range_depends_is_not_moved() -> None:
    space: dict[str, Domain] = {"layers": Int(low=1, high=3), "width": Int(low=1, high=9, when={"layers": (2,)})}
    start = {"layers": 1}
    encoding = Encoding(space)
    found = climbed(
        [start],
        encoding.encode_all([start]),
        lambda points: points[:, encoding.first["layers"]],
        space=space,
        encoding=encoding,
        rng=np.random.default_rng(2),
    )
    assert found == start
