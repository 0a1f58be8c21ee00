"""The catalogue: what is in it, and that every entry says what it is and what it takes."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from typing import get_args

import pytest
from pydantic import ValidationError

from autodl_ray.augment import CATALOGUE
from autodl_ray.augment.op import Family, Op

NEEDED = {
    "AutoContrast",
    "Brightness",
    "Contrast",
    "Equalize",
    "Invert",
    "Posterize",
    "Rotate",
    "Saturation",
    "Sharpness",
    "ShearX",
    "ShearY",
    "Solarize",
    "TranslateX",
    "TranslateY",
}


def test_there_are_at_least_sixty_of_seven_families() -> None:
    count = Counter(op.family for op in CATALOGUE.values())
    assert len(CATALOGUE) >= 60
    assert set(count) == set(get_args(Family))
    assert min(count.values()) >= 5


def test_what_the_ready_policies_are_made_of_is_there() -> None:
    assert set(CATALOGUE) >= NEEDED


def test_only_geometry_moves_pixels() -> None:
    for name, op in CATALOGUE.items():
        assert op.moves_pixels == (op.family == "geometry"), name


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_every_entry_says_what_it_is(name: str) -> None:
    kind = CATALOGUE[name]
    assert kind.__name__ == name
    first = (kind.__doc__ or "").splitlines()[0]
    assert 10 < len(first) < 120
    assert kind.__doc__ != Op.__doc__
    for key, field in kind.model_fields.items():
        assert field.description, key
        assert not field.is_required(), key
    assert list(CATALOGUE) == sorted(CATALOGUE)


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_every_parameter_is_typed_and_has_a_range(name: str) -> None:
    kind = CATALOGUE[name]
    for key in kind.model_fields:
        for wrong in ("nonsense", -1e9, 1e9, [1e3, -1e3], [1, 2, 3, "x"]):
            with pytest.raises(ValidationError):
                kind(**{key: wrong})
    with pytest.raises(ValidationError):
        kind(no_such_parameter=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_an_operation_is_plain_data(name: str) -> None:
    op = CATALOGUE[name]()
    assert CATALOGUE[name](**op.model_dump(mode="json")) == op
    assert hash(op) == hash(CATALOGUE[name]())
    packed = pickle.dumps(op)
    assert pickle.loads(packed) == op
    assert b"albumentations" not in packed
    assert b"cv2" not in packed


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_draws_come_from_the_generator_alone(name: str) -> None:
    op = CATALOGUE[name]()
    draws = [op.draw(random.Random(seed), 40, 60) for seed in range(20)]
    assert draws == [op.draw(random.Random(seed), 40, 60) for seed in range(20)]
    assert draws[0] == () or len(set(draws)) > 1 or name == "ColorJitter"  # whose defaults change nothing
    assert all(isinstance(value, int | float) for drawn in draws for value in drawn)
