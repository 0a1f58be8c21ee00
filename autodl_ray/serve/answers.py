"""What the HTTP application asks of what is behind it, and the words for it: a model, its versions, what is unknown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.artifacts.reference import REFERENCE_JSON, Reference
from autodl_ray.errors import AutoDLError, near_names
from autodl_ray.images import ImageArray
from autodl_ray.serve.rollout import Seen

__all__ = [
    "Answers",
    "Classifies",
    "Made",
    "Probabilities",
    "ServedModel",
    "UnknownModelError",
    "open_models",
    "reason",
    "select",
]

_T = TypeVar("_T")

Probabilities = npt.NDArray[np.float32]
"""Of N pictures and C classes, (N, C); or of one, (C,)."""


class Classifies(Protocol):
    """What a model has to do to be served: :class:`autodl_ray.models.predictor.Predictor` does."""

    def __call__(self, images: Sequence[ImageArray]) -> Probabilities:
        """Return (N, C) float32 probabilities for N pictures (H, W, 3) uint8 of any sizes."""
        ...


class Made(list[ImageArray]):
    """Decoded pictures that nobody sent, such as those of a heatmap: they are answered, and not watched."""


class UnknownModelError(LookupError):
    """There is no model of that name, or no such version; the message says what there is."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version of a model as it is served.

    Attributes:
        name: What it is called in URLs and answers.
        version: Of the bundle.
        dataset: Id of the dataset version it learned from.
        classes: C class names in the order of the probabilities.
        predict: The model itself.
        side: Pixels of its input's side; what batches are measured with.
        seen: Its answers in this replica since it is served.
        reference: What its training looked like; None: its bundle does not say.
    """

    name: str
    version: str
    dataset: str
    classes: tuple[str, ...]
    predict: Classifies
    side: int = 64
    seen: Seen = field(default_factory=Seen)
    reference: Reference | None = None

    def facts(self) -> dict[str, Any]:
        """Return what is told about it: ``model``, ``version``, ``dataset``."""
        return {"model": self.name, "version": self.version, "dataset": self.dataset}


class Answers(Protocol):
    """What the HTTP application asks of what is behind it; :class:`Engine` is one, a router to others may be one too.

    Attributes:
        models: Name → the version that answers when none is asked for; the first is the default model.
        max_pixels: Pictures with more are refused before they are decoded.
    """

    models: Mapping[str, ServedModel]
    max_pixels: int

    def listing(self) -> Sequence[ServedModel]:
        """Return every version of every model."""
        ...

    def select(self, name: str | None = None, version: str | None = None, *, key: str = "") -> ServedModel:
        """Choose who answers.

        Args:
            name: None: the default model.
            version: None: as the service decides, e.g. by the shares of a canary.
            key: Requests with the same key get the same version.

        Raises:
            UnknownModelError: There is none.
        """
        ...

    async def scores(self, model: ServedModel, data: bytes) -> Probabilities:
        """Return (C,) float32 probabilities of the picture in ``data``.

        Raises:
            DatasetError: The bytes are no usable picture.
        """
        ...

    async def probabilities(self, model: ServedModel, images: Sequence[ImageArray]) -> Probabilities:
        """Return (N, C) float32 probabilities for N decoded pictures."""
        ...

    async def run(self, work: Callable[..., _T], *args: Any) -> _T:
        """Run ``work`` off the event loop."""
        ...


def select(versions: Sequence[ServedModel], name: str | None, version: str | None) -> ServedModel:
    """Return the first of ``versions`` that has this name and version; None: any.

    Raises:
        UnknownModelError: There is none; the message names what there is.
    """
    named = [model for model in versions if name is None or model.name == name]
    if not named and name is not None:
        names = list(dict.fromkeys(model.name for model in versions))
        hint = near_names(name, names) or f"there is {', '.join(names)}."
        raise UnknownModelError(f"There is no model {name[:60]!r}; {hint}")
    for model in named:
        if version is None or model.version == version:
            return model
    there = ", ".join(model.version for model in named)
    raise UnknownModelError(f"Model {named[0].name!r} has no version {str(version)[:60]!r}; there is {there}.")


def open_models(bundles: Sequence[tuple[str, str | Path]], *, num_threads: int) -> list[ServedModel]:
    """Open bundles in this process.

    Args:
        bundles: (name, folder) of each.
        num_threads: onnxruntime threads of a call.

    Raises:
        BundleError: A bundle is damaged, truncated or of a newer schema.
    """
    from autodl_ray.models.predictor import Predictor

    models = []
    for name, folder in bundles:
        predictor = Predictor.open(folder, num_threads=num_threads)
        info = predictor.info
        side = info.preprocess.size
        reference = _reference(folder, len(info.classes))
        models.append(
            ServedModel(name, info.version, info.dataset_id, info.classes, predictor, side, reference=reference)
        )
    return models


def _reference(folder: str | Path, classes: int) -> Reference | None:
    artifact, _ = open_bundle(folder, verify=False)
    if REFERENCE_JSON not in artifact.manifest.files:
        return None
    reference = Reference.read(artifact.file(REFERENCE_JSON))
    return reference if len(reference.classes) == classes else None


def reason(error: AutoDLError) -> str:
    """Say in one line what was wrong with the input, for an answer."""
    details = [f"{key}: {value}" for key, value in (("seen", error.seen), ("accepted", error.accepted)) if value]
    return error.what + (f" ({'; '.join(details)})" if details else "")
