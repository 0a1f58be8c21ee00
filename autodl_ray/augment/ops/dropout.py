"""Operations that hide parts of the picture; boxes and masks stay."""

from __future__ import annotations

import math
import random
from typing import ClassVar

from pydantic import Field

from autodl_ray.augment.op import Drawn, Family, Op, Target
from autodl_ray.augment.ops.fields import Positives, Shares
from autodl_ray.images import ImageArray

__all__ = ["RandomErasing"]


class RandomErasing(Op):
    """Cover rectangles with the fill colour (Zhong et al. 2017; also known as cutout)."""

    family: ClassVar[Family] = "dropout"
    holes: int = Field(1, ge=1, le=64, description="rectangles, 1 to 64")
    scale: Shares = Field((0.02, 0.2), description="share of the area of each, as [low, high] in (0, 1]")
    ratio: Positives = Field((0.3, 3.3), description="width / height of each, as [low, high] above 0")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (top, left, height, width) of each rectangle, one after the other, in pixels."""
        drawn: list[float] = []
        for _ in range(self.holes):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            h = min(height, max(1, round(math.sqrt(area / ratio))))
            w = min(width, max(1, round(math.sqrt(area * ratio))))
            drawn += [rng.randint(0, height - h), rng.randint(0, width - w), h, w]
        return tuple(drawn)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Cover."""
        covered = image.copy()
        for start in range(0, len(drawn), 4):
            top, left, height, width = (int(value) for value in drawn[start : start + 4])
            covered[top : top + height, left : left + width] = target.fill
        return covered
