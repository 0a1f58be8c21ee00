"""The ranges of a search: floats, whole numbers and choices, each of which may depend on another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from autodl_ray.spec.values import Section, Word

__all__ = ["Choice", "Domain", "Float", "Int", "conditions_problem"]


class _Range(Section):
    when: dict[str, tuple[Word, ...]] = Field(
        {}, description="only where other searched fields have one of these values, e.g. {optimizer: [sgd]}"
    )


class Float(_Range):
    """A number between ``low`` and ``high``, drawn evenly or (``log``) evenly by order of magnitude."""

    type: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Float:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range starts above 0, got {self.low}")
        return self


class Int(_Range):
    """A whole number between ``low`` and ``high``, both included."""

    type: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Int:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range starts above 0, got {self.low}")
        return self


class Choice(_Range):
    """One of several values."""

    type: Literal["choice"] = "choice"
    values: tuple[Word, ...] = Field(min_length=1)


Domain = Annotated[Float | Int | Choice, Field(discriminator="type")]


def conditions_problem(space: Mapping[str, Domain]) -> str | None:
    """Say what is wrong with the ``when`` of a space.

    That is: a field that is not searched, a value that its field never has (the range would never be active), or
    fields that depend on each other.
    """
    for name, domain in space.items():
        for other, values in domain.when.items():
            if other not in space:
                return f"{name}: when names {other}, which is not searched; searched: {', '.join(sorted(space))}"
            problem = _values_problem(space[other], values)
            if problem:
                return f"{name}: when {other} is {problem}"
    left = dict(space)
    while left:
        free = [name for name, domain in left.items() if not any(other in left for other in domain.when)]
        if not free:
            return f"{', '.join(sorted(left))}: their when depend on each other in a circle"
        left = {name: domain for name, domain in left.items() if name not in free}
    return None


def _values_problem(domain: Float | Int | Choice, values: tuple[Word, ...]) -> str | None:
    """Say which of the values of a condition its field cannot have, or that there are none."""
    if not values:
        return "one of no values: it would never be active"
    if isinstance(domain, Float):
        return f"{values[0]!r}: {domain.low} to {domain.high} are floats; a condition needs a choice or whole numbers"
    for value in values:
        if isinstance(domain, Choice):
            if not any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in domain.values):
                return f"{value!r}, which it never is; it is one of {', '.join(map(str, domain.values))}"
        elif isinstance(value, bool) or not isinstance(value, int) or not domain.low <= value <= domain.high:
            return f"{value!r}, which it never is; it is a whole number from {domain.low} to {domain.high}"
    return None
