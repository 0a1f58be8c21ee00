"""What the clients return and raise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autodl_ray.errors import InputError, StageError

__all__ = ["Heatmap", "ModelFacts", "Prediction", "Probability", "RequestRefused", "ServiceUnavailable"]


class RequestRefused(InputError):
    """The service answered 4xx: asking again would not help.

    Attributes:
        status: Of HTTP.
        request_id: Under which the service's log has it, or None.
    """

    status: int = 400
    request_id: str | None = None


class ServiceUnavailable(StageError):
    """There was no answer, or a 429 or 5xx, as often as was tried.

    Attributes:
        status: The last one of HTTP; 0: there was no answer.
        request_id: Under which the service's log has it, or None.
    """

    status: int = 0
    request_id: str | None = None


@dataclass(frozen=True)
class Probability:
    """One class and how likely it is, in [0, 1]."""

    name: str
    probability: float


@dataclass(frozen=True)
class Heatmap:
    """Where the model looked.

    Attributes:
        method: How it was made.
        name: The class that was asked about.
        cells: Rows of numbers: by how much the class becomes less likely when that part is hidden.
    """

    method: str
    name: str
    cells: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture.

    Attributes:
        classes: The likeliest first.
        model: Who answered.
        version: Of that model.
        heatmap: When it was asked for.
        request_id: Under which the service's log has it.
        ms: Milliseconds in the service.
    """

    classes: tuple[Probability, ...]
    model: str
    version: str
    heatmap: Heatmap | None = None
    request_id: str | None = None
    ms: float = 0.0

    @property
    def name(self) -> str:
        """The likeliest class."""
        return self.classes[0].name

    @property
    def probability(self) -> float:
        """Of the likeliest class."""
        return self.classes[0].probability


@dataclass(frozen=True)
class ModelFacts:
    """One version of a model that the service has."""

    model: str
    version: str
    dataset: str
    classes: tuple[str, ...]

    @classmethod
    def of(cls, document: dict[str, Any]) -> ModelFacts:
        """Read what the service tells."""
        return cls(document["model"], document["version"], document["dataset"], tuple(document["classes"]))
