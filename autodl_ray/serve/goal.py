"""What a service is to serve: for each model the version that answers, and the one that is on its way in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from autodl_ray.errors import InputError
from autodl_ray.serve.rollout import RolloutRules
from autodl_ray.spec.explain import validated

__all__ = ["Goal", "NextVersion", "ServedVersion", "parse_goal"]

_KEPT = 20


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
    """One model: what answers now, and what may answer next.

    Which of ``past`` took over is not written here but decided while they come in, so the goal that was declared
    stays true: the last one that took over answers, and ``bundle`` when none did.
    """

    name: str
    bundle: str = Field(description="folder of the first version, as every node sees it")
    past: tuple[NextVersion, ...] = Field((), description="versions brought in before, the oldest first")
    next: NextVersion | None = None


class Goal(_Part):
    """Everything that is to be served; ``user_config`` of the deployment, changed without a restart."""

    models: tuple[ServedVersion, ...] = Field(min_length=1)

    @classmethod
    def of(cls, bundles: Sequence[tuple[str, str]]) -> Goal:
        """Serve these (name, folder), with nothing on its way in."""
        return cls(models=tuple(ServedVersion(name=name, bundle=folder) for name, folder in bundles))

    def with_next(self, name: str, following: NextVersion) -> Goal:
        """Return the goal with another version of one model on its way in; the one before it becomes past."""

        def change(model: ServedVersion) -> ServedVersion:
            past = (*model.past, *([] if model.next is None else [model.next]))
            return ServedVersion(name=name, bundle=model.bundle, past=past[-_KEPT:], next=following)

        return self._changed(name, change)

    def taken_back(self, name: str) -> Goal:
        """Return the goal without the newest version of a model, whether it is on its way in or took over.

        Raises:
            InputError: There is no such model, or no version but its first.
        """

        def change(model: ServedVersion) -> ServedVersion:
            if model.next is None and not model.past:
                raise InputError("There is no version to take back.", seen=name, hint="only its first one is served")
            past = model.past if model.next is not None else model.past[:-1]
            return ServedVersion(name=name, bundle=model.bundle, past=past)

        return self._changed(name, change)

    def served_now(self, name: str, bundle: str) -> Goal:
        """Return the goal with a bundle that answers at once, without any share or comparison."""
        return self._changed(name, lambda model: ServedVersion(name=name, bundle=bundle))

    def _changed(self, name: str, change: Callable[[ServedVersion], ServedVersion]) -> Goal:
        names = [model.name for model in self.models]
        if name not in names:
            raise InputError("There is no such model.", seen=name, accepted=", ".join(names))
        return Goal(models=tuple(change(model) if model.name == name else model for model in self.models))


def parse_goal(value: Any) -> Goal:
    """Read a goal from JSON-like values.

    Raises:
        SpecError: It is not valid.
    """
    return validated(Goal, value, what="What is to be served is not valid.")
