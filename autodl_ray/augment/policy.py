"""A policy: which augmentations a training picture gets, in which order, how often."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autodl_ray.augment.catalogue import CATALOGUE
from autodl_ray.augment.op import Target
from autodl_ray.augment.presets import PRESETS, TINY_PRESETS, TINY_SIDE, Row
from autodl_ray.augment.reading import Step, read_steps, read_yaml
from autodl_ray.errors import SpecError, near_names
from autodl_ray.images import Fit, ImageArray, fit_image

__all__ = ["AugmentPolicy"]


@dataclass(frozen=True)
class AugmentPolicy:
    """A sequence of operations, each with its probability: plain data, picklable.

    Attributes:
        name: Of the preset, or of the file.
        steps: What is done, in order.
        tiny_steps: What is done instead to pictures of at most 64 px a side; None: the same.
    """

    name: str
    steps: tuple[Step, ...] = ()
    tiny_steps: tuple[Step, ...] | None = None

    @classmethod
    def parse(cls, what: str) -> AugmentPolicy:
        """Return the preset of that name, or read a policy file.

        The presets ``light`` and ``strong`` do not flip or crop pictures of at most 64 px a side, such as digits:
        they shift and turn them a little.

        Args:
            what: ``none``, ``light``, ``strong``, ``tiny``, or the path of a YAML file (see jobs/augment.yaml).

        Raises:
            SpecError: No such preset or file, or the file has mistakes (all listed).
        """
        if what in PRESETS:
            tiny = TINY_PRESETS.get(what)
            return cls(what, _steps(PRESETS[what]), None if tiny is None else _steps(tiny))
        path = Path(what).expanduser()
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(
                "The augmentation policy is neither a preset nor a file that can be read.",
                seen=what,
                accepted=f"{', '.join(PRESETS)}, or the path of a YAML policy",
                hint=near_names(what, PRESETS),
            ) from error
        return cls(path.stem, read_yaml(text, source=path.name))

    @classmethod
    def from_document(cls, document: object, *, name: str = "policy") -> AugmentPolicy:
        """Read a policy that is data already, such as one that :meth:`to_document` made.

        Raises:
            SpecError: It has mistakes (all listed).
        """
        return cls(name, read_steps(document, source=name))

    def to_document(self) -> dict[str, Any]:
        """Return the steps as the mapping that a policy file holds."""
        return {
            "policies": [
                {
                    "transform": {"name": type(step.op).__name__, "params": step.op.model_dump(mode="json")},
                    "probability": step.probability,
                }
                for step in self.steps
            ]
        }

    @property
    def is_empty(self) -> bool:
        """Whether nothing is done but the scaling."""
        return not self.steps and not self.tiny_steps

    def apply(
        self,
        image: ImageArray,
        *,
        size: int,
        fit: Fit,
        rng_seed: int,
        fill: tuple[int, int, int] = (128, 128, 128),
    ) -> ImageArray:
        """Augment one picture of the training split and make it square.

        Args:
            image: (H, W, 3) uint8 RGB; not changed.
            size: S, side of the result in pixels.
            fit: How the picture becomes square where no operation of the policy has made it so.
            rng_seed: Decides everything random.
            fill: Colour of pixels from outside the picture.

        Returns:
            (S, S, 3) uint8 RGB, contiguous.
        """
        target = Target(size, fill)
        rng = random.Random(rng_seed)
        tiny = self.tiny_steps is not None and max(image.shape[:2]) <= TINY_SIDE
        for step in self.tiny_steps if tiny and self.tiny_steps is not None else self.steps:
            if step.probability < 1 and rng.random() >= step.probability:
                continue
            drawn = step.op.draw(rng, image.shape[0], image.shape[1])
            image = step.op.apply(image, drawn, target)
        return np.ascontiguousarray(fit_image(image, size=size, fit=fit, fill=fill))


def _steps(rows: tuple[Row, ...]) -> tuple[Step, ...]:
    return tuple(Step(CATALOGUE[name](**params), probability) for name, params, probability in rows)
