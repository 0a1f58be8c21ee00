"""The parts of a policy: an operation, one of several, some of several, a sequence, a ready policy, a blend."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict

from autodl_ray.augment.op import Op, Target
from autodl_ray.augment.scene import Scene, apply_op

__all__ = ["Blend", "Chain", "Node", "OneOf", "Ready", "Recipe", "SomeOf", "Step", "run_nodes"]


@dataclass(frozen=True)
class Step:
    """One operation of a policy, and how often it is done.

    Attributes:
        op: The operation with its parameters.
        probability: In [0, 1].
    """

    op: Op
    probability: float = 1.0

    def run(self, scene: Scene, rng: random.Random, target: Target) -> Scene:
        """Draw and do the operation."""
        height, width = scene.image.shape[:2]
        return apply_op(self.op, scene, self.op.draw(rng, height, width), target)

    def to_document(self) -> dict[str, Any]:
        """Return the step as a policy file holds it."""
        params = self.op.model_dump(mode="json")
        return {"transform": {"name": type(self.op).__name__, "params": params}, "probability": self.probability}


@dataclass(frozen=True)
class OneOf:
    """One of several, by weight.

    Attributes:
        choices: At least one.
        weights: Above 0, one a choice; their sum is any.
        probability: That one is done at all; the choice may have a probability of its own besides.
    """

    choices: tuple[Node, ...]
    weights: tuple[float, ...]
    probability: float = 1.0

    def run(self, scene: Scene, rng: random.Random, target: Target) -> Scene:
        """Choose one and do it."""
        return run_nodes(rng.choices(self.choices, self.weights), scene, rng=rng, target=target)

    def to_document(self) -> dict[str, Any]:
        """Return the choices as a policy file holds them."""
        pairs = zip(self.choices, self.weights, strict=True)
        return {
            "one_of": [{**node.to_document(), "weight": weight} for node, weight in pairs],
            "probability": self.probability,
        }


@dataclass(frozen=True)
class SomeOf:
    """From ``low`` to ``high`` of several, evenly, in random order.

    Attributes:
        steps: Among which is chosen.
        low: Fewest.
        high: Most.
        replace: Whether the same may come twice.
        probability: That any is done at all.
    """

    steps: tuple[Node, ...]
    low: int
    high: int
    replace: bool = False
    probability: float = 1.0

    def run(self, scene: Scene, rng: random.Random, target: Target) -> Scene:
        """Choose some and do them."""
        return run_nodes(self.choose(rng), scene, rng=rng, target=target)

    def choose(self, rng: random.Random) -> list[Node]:
        """Choose how many, which, and in which order."""
        count = rng.randint(self.low, self.high)
        return rng.choices(self.steps, k=count) if self.replace else rng.sample(self.steps, count)

    def to_document(self) -> dict[str, Any]:
        """Return the steps as a policy file holds them."""
        inner = {
            "n": [self.low, self.high],
            "steps": [node.to_document() for node in self.steps],
            "replace": self.replace,
        }
        return {"some_of": inner, "probability": self.probability}


@dataclass(frozen=True)
class Chain:
    """A sequence that is done as a whole, or not at all.

    Attributes:
        steps: In order.
        probability: Of the whole.
    """

    steps: tuple[Node, ...]
    probability: float = 1.0

    def run(self, scene: Scene, rng: random.Random, target: Target) -> Scene:
        """Do all, in order."""
        return run_nodes(self.steps, scene, rng=rng, target=target)

    def to_document(self) -> dict[str, Any]:
        """Return the sequence as a policy file holds it."""
        return {"policies": [node.to_document() for node in self.steps], "probability": self.probability}


class Recipe(BaseModel, ABC):
    """A published policy; its fields are its parameters, and from them come its steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    """As a policy file names it."""
    moves_pixels: ClassVar[bool] = True
    """Whether positions change: then boxes and masks follow."""

    @abstractmethod
    def nodes(self) -> tuple[Node, ...]:
        """Return the steps."""

    @abstractmethod
    def scaled(self, factor: float) -> Recipe:
        """Return it ``factor`` times as strong, within what its parameters allow; 1: as it is."""


@dataclass(frozen=True)
class Ready:
    """A ready policy as a step.

    Attributes:
        recipe: Which one, with its parameters.
        probability: In [0, 1].
        steps: What the recipe is made of.
    """

    recipe: Recipe
    probability: float = 1.0
    steps: tuple[Node, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", self.recipe.nodes())

    def run(self, scene: Scene, rng: random.Random, target: Target) -> Scene:
        """Do its steps."""
        return run_nodes(self.steps, scene, rng=rng, target=target)

    def to_document(self) -> dict[str, Any]:
        """Return it as a policy file holds it."""
        params = self.recipe.model_dump(mode="json")
        return {"policy": self.recipe.name, "params": params, "probability": self.probability}


@dataclass(frozen=True)
class Blend:
    """Chains of random steps, blended with each other and with the picture they started from (AugMix).

    Boxes and masks stay those of the picture: it is always part of the blend, and a copy that was turned a little
    has no box of its own. The steps must keep the size of the picture.

    Attributes:
        choices: From which each chain is drawn, with repetition.
        width: How many chains.
        depth: Fewest and most steps of a chain.
        alpha: Of the Dirichlet distribution of the chains' weights and the Beta distribution of the blend.
        probability: In [0, 1].
    """

    choices: tuple[Node, ...]
    width: int = 3
    depth: tuple[int, int] = (1, 3)
    alpha: float = 1.0
    probability: float = 1.0

    def run(self, scene: Scene, rng: random.Random, target: Target) -> Scene:
        """Make the chains and blend them."""
        shares = [rng.gammavariate(self.alpha, 1.0) for _ in range(self.width)]
        strength = rng.betavariate(self.alpha, self.alpha)
        scale = strength / max(sum(shares), 1e-12)
        plain = Scene(scene.image)
        blended = scene.image * np.float32(1 - strength)
        for share in shares:
            chosen = rng.choices(self.choices, k=rng.randint(*self.depth))
            blended += run_nodes(chosen, plain, rng=rng, target=target).image * np.float32(share * scale)
        return scene._replace(image=np.clip(blended.round(), 0, 255).astype(np.uint8))

    def to_document(self) -> dict[str, Any]:
        """A blend is written as the ready policy that it is part of.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a blend is part of a ready policy and is written as that")


Node: TypeAlias = Step | OneOf | SomeOf | Chain | Ready | Blend


def run_nodes(nodes: Sequence[Node], scene: Scene, *, rng: random.Random, target: Target) -> Scene:
    """Do the steps in order, each with its probability; all randomness comes from ``rng``."""
    for node in nodes:
        if node.probability < 1 and rng.random() >= node.probability:
            continue
        scene = node.run(scene, rng, target)
    return scene
