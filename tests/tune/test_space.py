"""Ranges with conditions: drawn, counted, walked, told apart, and encoded for models."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autodl_ray.seeding import rng_for
from autodl_ray.spec import Choice, Domain, Float, Int
from autodl_ray.tune.proposers.cube import Cube
from autodl_ray.tune.space import (
    Encoding,
    all_settings,
    draw,
    fingerprint,
    is_inside,
    num_settings,
    only_active,
    ordered,
    value_at,
)
from tests.tune.proposers.sweeps import SPACES

CHAIN: dict[str, Domain] = {
    "a": Int(low=1, high=5, when={"o": (1,)}),
    "b": Choice(values=("x", "y"), when={"a": (2, 3)}),
    "o": Choice(values=(1, 2, True)),
}
SPACE: dict[str, Domain] = {
    "optimizer": Choice(values=("sgd", "adamw")),
    "momentum": Float(low=0.0, high=0.8, when={"optimizer": ("sgd",)}),
    "lr": Float(low=1e-4, high=1e-2, log=True),
    "batch_size": Int(low=8, high=128, log=True),
}


def test_conditions_come_before_what_depends_on_them() -> None:
    assert ordered(CHAIN) == ["o", "a", "b"]
    assert ordered(SPACES["mixed"]) == ["augment", "batch_size", "lr", "augment_magnitude"]


@pytest.mark.parametrize("space", [*SPACES.values(), CHAIN, SPACE])
def test_what_is_drawn_lies_inside(space: dict[str, Domain]) -> None:
    rng = rng_for(0, "test")
    for _ in range(50):
        assert is_inside(space, draw(space, rng))


def test_a_chain_of_conditions_is_counted_and_walked() -> None:
    found = list(all_settings(CHAIN))
    assert num_settings(CHAIN) == len(found) == 2 + 3 + 2 * 2
    assert len({fingerprint(p) for p in found}) == len(found)
    assert all(is_inside(CHAIN, p) for p in found)
    assert {"o": True} in found  # True is not the 1 that the condition names


def test_a_float_that_can_be_active_makes_a_space_infinite() -> None:
    assert num_settings(SPACE) == math.inf
    assert num_settings({"o": CHAIN["o"]}) == 3
    with pytest.raises(ValueError, match="momentum is a float range"):
        list(all_settings({name: SPACE[name] for name in ("momentum", "optimizer")}))


def test_inactive_and_missing_fields_are_told_apart() -> None:
    assert is_inside(SPACE, {"optimizer": "adamw", "lr": 1e-3, "batch_size": 8})
    assert not is_inside(SPACE, {"optimizer": "adamw", "lr": 1e-3, "batch_size": 8, "momentum": 0.5})
    assert not is_inside(SPACE, {"optimizer": "sgd", "lr": 1e-3, "batch_size": 8})
    assert only_active(SPACE, {"momentum": 0.5, "optimizer": "adamw", "other": 1}) == {"optimizer": "adamw", "other": 1}


def test_values_have_equal_shares_of_the_unit() -> None:
    domain = Int(low=1, high=4)
    assert [value_at(domain, u) for u in (0.0, 0.24, 0.26, 0.74, 0.76, 1.0)] == [1, 1, 2, 3, 4, 4]
    assert value_at(Float(low=1e-4, high=1e-2, log=True), 0.5) == pytest.approx(1e-3)
    assert [value_at(Choice(values=("x", "y")), u) for u in (0.0, 0.49, 0.51, 1.0)] == ["x", "x", "y", "y"]


class TestEncoding:
    """Settings as points."""

    def test_columns(self) -> None:
        encoding = Encoding(SPACE)
        assert encoding.names == ("batch_size", "lr", "optimizer=sgd", "optimizer=adamw", "momentum", "momentum?")
        assert encoding.owners == ("batch_size", "lr", "optimizer", "optimizer", "momentum", "momentum")
        assert encoding.is_number.tolist() == [True, True, False, False, True, False]
        assert Encoding(SPACE, onehot=False).names == ("batch_size", "lr", "optimizer", "momentum", "momentum?")

    def test_values(self) -> None:
        sgd = {"optimizer": "sgd", "momentum": 0.2, "lr": 1e-3, "batch_size": 32}
        assert Encoding(SPACE).encode(sgd).tolist() == pytest.approx([0.5, 0.5, 1, 0, 0.25, 1])
        adamw = {"optimizer": "adamw", "lr": 1e-2, "batch_size": 128}
        assert Encoding(SPACE).encode(adamw).tolist() == pytest.approx([1, 1, 0, 1, 0.5, 0])
        assert Encoding(SPACE, onehot=False).encode(adamw).tolist() == pytest.approx([1, 1, 1, 0.5, 0])

    def test_what_lies_outside_is_moved_and_what_has_no_place_imputed(self) -> None:
        odd = {"optimizer": "auto", "lr": 7.0, "batch_size": "auto"}
        assert Encoding(SPACE).encode(odd).tolist() == pytest.approx([0.5, 1, 0, 0, 0.5, 0])

    def test_many_are_encoded_as_each(self) -> None:
        rng = rng_for(0, "test")
        many = [draw(SPACE, rng) for _ in range(20)]
        points = Encoding(SPACE).encode_all(many)
        assert points.dtype == np.float64
        assert np.array_equal(points, np.array([Encoding(SPACE).encode(p) for p in many]))
        assert points.min() >= 0
        assert points.max() <= 1


@pytest.mark.parametrize("space", [*SPACES.values(), CHAIN, SPACE])
def test_coordinates_are_encoded_as_their_settings(space: dict[str, Domain]) -> None:
    cube = Cube(space)
    rows = cube.draw(rng_for(0, "test").random((60, len(space))))
    params = [cube.params(row) for row in rows]
    assert all(is_inside(space, p) for p in params)
    assert np.allclose(cube.encode(rows), Encoding(space).encode_all(params))
    again = np.array([cube.place(p) for p in params])
    assert np.allclose(cube.encode(again), cube.encode(rows))
    for row, p in zip(rows[:5], params, strict=False):
        near = [cube.params(n) for n in cube.neighbours(row)]
        assert near[0] == p
        assert all(is_inside(space, n) for n in near)
