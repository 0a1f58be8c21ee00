"""What an augmentation is: typed parameters, a random choice, and its application, apart from each other."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from autodl_ray.images import ImageArray

__all__ = ["Drawn", "Op", "Target"]

Drawn = tuple[float, ...]


@dataclass(frozen=True)
class Target:
    """What the picture is to become.

    Attributes:
        size: S, side of the square network input in pixels.
        fill: Colour of pixels that come from outside the picture.
    """

    size: int
    fill: tuple[int, int, int] = (128, 128, 128)


class Op(BaseModel, ABC):
    """One operation of the catalogue; its fields are its parameters.

    An instance is immutable and picklable, so that it travels to workers as it is. The random choice (:meth:`draw`)
    is apart from its application (:meth:`apply`), so that an image and what belongs to it can move together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    moves_pixels: ClassVar[bool] = False
    """Whether positions change: then boxes and masks have to follow."""

    @abstractmethod
    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Choose what will be done to a picture of this size; all randomness of the operation is here."""

    @abstractmethod
    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Do what was chosen.

        Args:
            image: (H, W, 3) uint8 RGB, not changed in place.
            drawn: What :meth:`draw` returned for this picture.
            target: Size and fill colour.

        Returns:
            (H', W', 3) uint8 RGB.
        """
