"""What a service is to serve: for each model the version that answers, and the one that is on its way in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autodl_ray.errors import SpecError
from autodl_ray.serve.rollout import RolloutRules

__all__ = ["Goal", "NextVersion", "ServedVersion", "parse_goal"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NextVersion(_Part):
    """A new version on its way in."""

    bundle: str = Field(description="its folder, as every node sees it")
    rollout: str = Field(min_length=1, max_length=64, description="id of this attempt: a new one is judged anew")
    share: float = Field(0.1, ge=0, le=1, description="of the request keys that the new version answers")
    shadow: float = Field(0.1, ge=0, le=1, description="of the other requests that it answers too, unseen, to compare")
    rules: RolloutRules = Field(RolloutRules(), description="when it takes over, and when it goes")


class ServedVersion(_Part):
    """One model: what answers now, and what may answer next."""

    name: str
    bundle: str = Field(description="folder of the version that answers, as every node sees it")
    next: NextVersion | None = None


class Goal(_Part):
    """Everything that is to be served; ``user_config`` of the deployment, changed without a restart."""

    models: tuple[ServedVersion, ...] = Field(min_length=1)

    @classmethod
    def of(cls, bundles: Sequence[tuple[str, str]]) -> Goal:
        """Serve these (name, folder), with nothing on its way in."""
        return cls(models=tuple(ServedVersion(name=name, bundle=folder) for name, folder in bundles))

    def with_next(self, name: str, following: NextVersion | None) -> Goal:
        """Return the goal with another version of one model on its way in, or none."""
        return Goal(
            models=tuple(
                ServedVersion(name=m.name, bundle=m.bundle, next=following) if m.name == name else m
                for m in self.models
            )
        )


def parse_goal(value: Any) -> Goal:
    """Read a goal from JSON-like values.

    Raises:
        SpecError: It is not valid.
    """
    try:
        return Goal.model_validate(value)
    except ValidationError as error:
        reasons = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise SpecError("What is to be served is not valid.", seen="; ".join(reasons)) from error
