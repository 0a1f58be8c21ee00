"""What an augmentation is: typed parameters, a random choice, and its application, apart from each other."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from autodl_ray.images import ImageArray

__all__ = ["Boxes", "Drawn", "Family", "Mask", "Op", "Target"]

Drawn = tuple[float, ...]
Boxes = npt.NDArray[np.float32]
"""(N, 4) float32: xmin, ymin, xmax, ymax in pixels (``pascal_voc``)."""
Mask = npt.NDArray[np.uint8]
"""(H, W) uint8 class numbers; what comes from outside the picture is 255 (nothing is known of it)."""
Family = Literal["geometry", "colour", "blur", "noise", "weather", "dropout", "quality"]


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
    is apart from its application (:meth:`apply`), so that an image, its mask and its boxes move together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    family: ClassVar[Family]
    """What kind of change it is."""
    moves_pixels: ClassVar[bool] = False
    """Whether positions change: then boxes and masks follow."""

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

    def apply_mask(self, mask: Mask, drawn: Drawn, target: Target) -> Mask:
        """Move a mask as :meth:`apply` moves the picture: (H, W) → (H', W'), nearest neighbour."""
        if self.moves_pixels:
            raise NotImplementedError(f"{type(self).__name__} moves pixels and must move masks")
        return mask

    def move_boxes(self, boxes: Boxes, drawn: Drawn, *, height: int, width: int, target: Target) -> Boxes:
        """Move boxes as :meth:`apply` moves the picture; they may come to lie outside it, and are cut later.

        Args:
            boxes: (N, 4) float32 within the picture.
            drawn: What :meth:`draw` returned.
            height: Of the picture before, in pixels.
            width: Of the picture before, in pixels.
            target: Size and fill colour.

        Returns:
            (N, 4) float32: the smallest upright boxes around what the boxes became.
        """
        if self.moves_pixels:
            raise NotImplementedError(f"{type(self).__name__} moves pixels and must move boxes")
        return boxes
