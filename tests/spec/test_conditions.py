"""Conditions of ranges: what is refused, and how it is said."""

from __future__ import annotations

from typing import Any

import pytest

from autodl_ray.errors import SpecError
from autodl_ray.spec import Choice, Domain, Float, Int, parse_spec
from autodl_ray.spec.domains import conditions_problem

OPTIMIZER = Choice(values=("sgd", "adamw"))


def momentum(**when: Any) -> Float:
    return Float(low=0.0, high=0.99, when=when)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"momentum": momentum(optimizer=("sgd",))}, "momentum: when names optimizer, which is not searched"),
        (
            {"optimizer": OPTIMIZER, "momentum": momentum(optimizer=("sdg",))},
            "momentum: when optimizer is 'sdg', which it never is; it is one of sgd, adamw",
        ),
        ({"optimizer": OPTIMIZER, "momentum": momentum(optimizer=())}, "it would never be active"),
        (
            {"epochs": Int(low=1, high=5), "momentum": momentum(epochs=(6,))},
            "when epochs is 6, which it never is; it is a whole number from 1 to 5",
        ),
        (
            {"lr": Float(low=0.1, high=1.0), "momentum": momentum(lr=(0.1,))},
            "0.1 to 1.0 are floats; a condition needs a choice or whole numbers",
        ),
        (
            {
                "optimizer": Choice(values=("sgd", "adamw"), when={"momentum": (1,)}),
                "momentum": Int(low=0, high=1, when={"optimizer": ("sgd",)}),
            },
            "momentum, optimizer: their when depend on each other in a circle",
        ),
    ],
)
def test_a_wrong_condition_is_explained(space: dict[str, Domain], says: str) -> None:
    assert says in (conditions_problem(space) or "")


def test_a_right_condition_is_accepted() -> None:
    assert conditions_problem({"optimizer": OPTIMIZER, "momentum": momentum(optimizer=("sgd",))}) is None
    whole = {"epochs": Int(low=1, high=5), "momentum": momentum(epochs=(2, 3))}
    assert conditions_problem(whole) is None


def test_a_specification_with_a_wrong_condition_is_refused() -> None:
    space = {
        "optimizer": {"type": "choice", "values": ["sgd", "adamw"]},
        "momentum": {"type": "float", "low": 0.0, "high": 0.9, "when": {"optimizer": ["adam"]}},
    }
    with pytest.raises(SpecError) as caught:
        parse_spec({"data": {"path": "photos"}, "tune": {"param_space": space}})
    assert "'adam', which it never is" in str(caught.value)
