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
    """Say what is wrong with the ``when`` of a space: an unknown field, or fields that depend on each other."""
    for name, domain in space.items():
        unknown = [other for other in domain.when if other not in space]
        if unknown:
            return f"{name}: when names {unknown[0]}, which is not searched; searched: {', '.join(sorted(space))}"
    left = dict(space)
    while left:
        free = [name for name, domain in left.items() if not any(other in left for other in domain.when)]
        if not free:
            return f"{', '.join(sorted(left))}: their when depend on each other in a circle"
        left = {name: domain for name, domain in left.items() if name not in free}
    return None
