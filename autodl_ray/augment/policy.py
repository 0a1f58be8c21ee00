"""A policy: which augmentations a training picture gets, in which order, how often."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodl_ray.augment.fitting import fit_scene
from autodl_ray.augment.nodes import Node, run_nodes
from autodl_ray.augment.op import Target
from autodl_ray.augment.presets import AS_WRITTEN, PRESETS, TINY_SIDE
from autodl_ray.augment.reading import MOST_CHARS, Parts, read_parts, read_yaml
from autodl_ray.augment.scene import Scene
from autodl_ray.errors import SpecError, near_names
from autodl_ray.images import Fit, ImageArray

__all__ = ["AugmentPolicy"]


@dataclass(frozen=True)
class AugmentPolicy:
    """A sequence of steps, each with its probability: plain data, picklable, comparable.

    Attributes:
        name: Of the preset, or of the file.
        steps: What is done, in order.
        tiny_steps: What is done instead to pictures of at most 64 px a side; None: the same.
    """

    name: str
    steps: tuple[Node, ...] = ()
    tiny_steps: tuple[Node, ...] | None = None

    @classmethod
    def parse(cls, what: str, *, magnitude: float = AS_WRITTEN) -> AugmentPolicy:
        """Return the ready policy of that name, or read a policy file, or the text that :attr:`text` gave.

        No ready policy flips or crops pictures of at most 64 px a side, such as digits: they are shifted instead.

        Args:
            what: ``none``, ``light``, ``strong``, ``tiny``, ``auto_augment``, ``rand_augment``, ``trivial_augment``,
                ``augmix``, the path of a YAML file (see jobs/augment.yaml), or a policy itself, as JSON.
            magnitude: Strength of a ready policy, in [0, 1]: 0.5 is the policy as written, 1 twice its ranges (where
                the operations allow it), 0 the least. A file is always done as it is written.

        Raises:
            SpecError: No such ready policy or file, the file has mistakes (all listed), or the magnitude is not
                in [0, 1].
        """
        if not 0 <= magnitude <= 1:
            raise SpecError("The magnitude of an augmentation is a share.", seen=magnitude, accepted="0 to 1")
        if what in PRESETS:
            steps, tiny_steps = PRESETS[what](magnitude)
            return cls(what, steps, tiny_steps)
        if what.startswith("{"):
            return cls._of("policy", read_yaml(what, source="the policy"))
        path = Path(what).expanduser()
        return cls._of(path.stem, read_yaml(_text(path, what), source=path.name))

    @classmethod
    def from_document(cls, document: object, *, name: str = "policy") -> AugmentPolicy:
        """Read a policy that is data already, such as one that :meth:`to_document` made.

        Raises:
            SpecError: It has mistakes (all listed).
        """
        return cls._of(name, read_parts(document, source=name))

    @classmethod
    def _of(cls, name: str, parts: Parts) -> AugmentPolicy:
        return cls(name, parts.steps, parts.tiny_steps)

    def to_document(self) -> dict[str, Any]:
        """Return the steps as the mapping that a policy file holds, with every parameter written out."""
        document: dict[str, Any] = {"policies": [step.to_document() for step in self.steps]}
        if self.tiny_steps is not None:
            document["tiny_policies"] = [step.to_document() for step in self.tiny_steps]
        return document

    @property
    def text(self) -> str:
        """The steps as one line of JSON, which :meth:`parse` reads: a policy that needs no file beside it."""
        return json.dumps(self.to_document(), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that are equal for equal steps, on every machine; the name does not count."""
        return hashlib.blake2b(self.text.encode(), digest_size=8).hexdigest()

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
        return self.apply_scene(Scene(image), size=size, fit=fit, rng_seed=rng_seed, fill=fill).image

    def apply_scene(
        self,
        scene: Scene,
        *,
        size: int,
        fit: Fit,
        rng_seed: int,
        fill: tuple[int, int, int] = (128, 128, 128),
    ) -> Scene:
        """Augment one picture together with its mask and its boxes, and make it square.

        The pixels are those of :meth:`apply` with the same seed. A box of which too little is left in the picture is
        dropped with its label (see :func:`autodl_ray.augment.scene.cut_boxes`).

        Args:
            scene: The picture and what belongs to it; not changed.
            size: S, side of the result in pixels.
            fit: How the picture becomes square where no operation of the policy has made it so.
            rng_seed: Decides everything random.
            fill: Colour of pixels from outside the picture.

        Returns:
            An (S, S, 3) picture, contiguous, an (S, S) mask, boxes within the picture and their labels.
        """
        tiny = self.tiny_steps is not None and max(scene.image.shape[:2]) <= TINY_SIDE
        steps = self.tiny_steps if tiny and self.tiny_steps is not None else self.steps
        done = run_nodes(steps, scene, rng=random.Random(rng_seed), target=Target(size, fill))
        return fit_scene(done, size=size, fit=fit, fill=fill)


def _text(path: Path, what: str) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MOST_CHARS + 1)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise SpecError(
            "The augmentation policy is neither a preset nor a file that can be read.",
            seen=what,
            accepted=f"{', '.join(PRESETS)}, or the path of a YAML policy",
            hint=near_names(what, PRESETS),
        ) from error
