"""Operations that cut, pad and scale."""

from __future__ import annotations

import math
import random
from typing import Annotated

from pydantic import AfterValidator, Field

from autodl_ray.augment.op import Drawn, Target
from autodl_ray.augment.ops.fields import Border, Parts, Positives, Shares, Signeds, ordered
from autodl_ray.augment.ops.windowed import Window, Windowed

__all__ = [
    "CenterCrop",
    "CropAndPad",
    "Letterbox",
    "LongestSide",
    "RandomCrop",
    "RandomCropFromBorders",
    "RandomPad",
    "RandomResizedCrop",
    "RandomScale",
    "RandomShift",
    "Resize",
    "ShortestSide",
    "TranslateX",
    "TranslateY",
]

_LONGEST = 8192
_Scale = Annotated[float, Field(ge=0.05, le=4)]
_Side = Annotated[int, Field(ge=1, le=4096)]


class RandomResizedCrop(Windowed):
    """Cut a random part, and scale it to the network's input (Szegedy et al. 2014)."""

    scale: Shares = Field((0.5, 1.0), description="share of the area, as [low, high] in (0, 1]")
    ratio: Positives = Field((0.75, 4 / 3), description="width / height of the part, as [low, high] in (0, 100]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (top, left, height, width) of the part, in pixels."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return (rng.randint(0, height - h), rng.randint(0, width - w), h, w)
        # No such part lies within (a very long picture): the middle, with the nearest ratio that does.
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        return ((height - h) // 2, (width - w) // 2, h, w)

    def window(self, drawn: Drawn, height: int, width: int, target: Target) -> Window:
        """Scale the part to the input's size."""
        top, left, h, w = (int(value) for value in drawn)
        return Window(top, left, h, w, target.size, target.size)


class RandomCrop(Windowed):
    """Cut a part of a fixed share of each side, anywhere; its size stays as it is."""

    share: Shares = Field((0.8, 1.0), description="share of each side that is kept, as [low, high] in (0, 1]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (top, left, height, width) of the part, in pixels."""
        share = rng.uniform(*self.share)
        h, w = max(1, round(height * share)), max(1, round(width * share))
        return (rng.randint(0, height - h), rng.randint(0, width - w), h, w)

    def window(self, drawn: Drawn, height: int, width: int, target: Target) -> Window:
        """Cut."""
        top, left, h, w = (int(value) for value in drawn)
        return Window(top, left, h, w, h, w)


class CenterCrop(RandomCrop):
    """Cut the middle; its size stays as it is."""

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (top, left, height, width) of the part, in pixels."""
        share = rng.uniform(*self.share)
        h, w = max(1, round(height * share)), max(1, round(width * share))
        return ((height - h) // 2, (width - w) // 2, h, w)


class RandomCropFromBorders(Windowed):
    """Cut a strip off each of the four sides, each of its own width."""

    share: Parts = Field((0.0, 0.1), description="share of the side that is cut off, as [low, high] in [0, 1]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (top, bottom, left, right): shares cut off."""
        return tuple(rng.uniform(*self.share) for _ in range(4))

    def window(self, drawn: Drawn, height: int, width: int, target: Target) -> Window:
        """Cut; at least one pixel stays."""
        top, h = _rest(height, drawn[0], drawn[1])
        left, w = _rest(width, drawn[2], drawn[3])
        return Window(top, left, h, w, h, w)


def _rest(side: int, before: float, after: float) -> tuple[int, int]:
    start = min(round(side * before), side - 1)
    return start, max(1, side - start - round(side * after))


class CropAndPad(Windowed):
    """Cut off or pad each side by its own amount, and scale back to the old size."""

    fraction: Annotated[float, Field(ge=0, le=0.45)] = Field(
        0.1, description="0 to 0.45: most that is cut off or padded, as a share of the side"
    )
    border: Border = Field("fill", description="edge (repeat the edge's pixels) or fill (the mean colour)")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (top, bottom, left, right): shares padded; below 0 is cut off."""
        return tuple(rng.uniform(-self.fraction, self.fraction) for _ in range(4))

    def border_of(self, target: Target) -> tuple[int, int, int] | None:
        """As ``border`` says."""
        return target.fill if self.border == "fill" else None

    def window(self, drawn: Drawn, height: int, width: int, target: Target) -> Window:
        """The larger or smaller window, scaled to the old size."""
        top, bottom, left, right = (
            round(share * side) for share, side in zip(drawn, (height, height, width, width), strict=True)
        )
        return Window(-top, -left, max(1, height + top + bottom), max(1, width + left + right), height, width)


class RandomPad(CropAndPad):
    """Pad each side by its own amount, and scale back to the old size: the picture becomes smaller."""

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (top, bottom, left, right): shares padded."""
        return tuple(rng.uniform(0, self.fraction) for _ in range(4))


class RandomShift(Windowed):
    """Pad with the edge's pixels and cut the old size elsewhere: for tiny pictures, where a crop loses too much."""

    fraction: float = Field(0.125, ge=0, le=1, description="largest shift as a share of the side, 0 to 1")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (down, right), in pixels."""
        most_y, most_x = round(height * self.fraction), round(width * self.fraction)
        return (rng.randint(-most_y, most_y), rng.randint(-most_x, most_x))

    def border_of(self, target: Target) -> tuple[int, int, int] | None:
        """The edge is repeated."""
        return None

    def window(self, drawn: Drawn, height: int, width: int, target: Target) -> Window:
        """Shift by whole pixels; at least one row and one column of the picture stay."""
        return _shifted(height, width, down=int(drawn[0]), right=int(drawn[1]))


def _shifted(height: int, width: int, *, down: int = 0, right: int = 0) -> Window:
    down, right = max(1 - height, min(down, height - 1)), max(1 - width, min(right, width - 1))
    return Window(-down, -right, height, width, height, width)


class TranslateX(Windowed):
    """Shift the picture right (above 0) or left, by whole pixels."""

    share: Signeds = Field((-0.1, 0.1), description="shift as a share of the side, as [low, high] in [-1, 1]")
    border: Border = Field("fill", description="edge (repeat the edge's pixels) or fill (the mean colour)")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (share,)."""
        return (rng.uniform(*self.share),)

    def border_of(self, target: Target) -> tuple[int, int, int] | None:
        """As ``border`` says."""
        return target.fill if self.border == "fill" else None

    def window(self, drawn: Drawn, height: int, width: int, target: Target) -> Window:
        """To the side; at least one column of the picture stays."""
        return _shifted(height, width, right=round(drawn[0] * width))


class TranslateY(TranslateX):
    """Shift the picture down (above 0) or up, by whole pixels."""

    def window(self, drawn: Drawn, height: int, width: int, target: Target) -> Window:
        """Down or up; at least one row of the picture stays."""
        return _shifted(height, width, down=round(drawn[0] * height))


class RandomScale(Windowed):
    """Scale both sides by one random factor; the picture's size changes."""

    factor: Annotated[tuple[_Scale, _Scale], AfterValidator(ordered)] = Field(
        (0.8, 1.25), description="factor of both sides, as [low, high] in [0.05, 4]"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (factor,): up and down are equally likely."""
        low, high = self.factor
        return (math.exp(rng.uniform(math.log(low), math.log(high))),)

    def window(self, drawn: Drawn, height: int, width: int, target: Target) -> Window:
        """The whole picture, scaled."""
        return _whole(height, width, drawn[0])


def _whole(height: int, width: int, factor: float) -> Window:
    return Window(0, 0, height, width, max(1, round(height * factor)), max(1, round(width * factor)))


class Resize(Windowed):
    """Scale the whole picture to the network's input, whatever its proportions."""

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Nothing is to choose."""
        return ()

    def window(self, drawn: Drawn, height: int, width: int, target: Target) -> Window:
        """The whole picture, square."""
        return Window(0, 0, height, width, target.size, target.size)


class LongestSide(Windowed):
    """Scale so that the longer side has a size; the proportions stay."""

    size: _Side | None = Field(None, description="pixels, 1 to 4096; none: the side of the network's input")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Nothing is to choose."""
        return ()

    def window(self, drawn: Drawn, height: int, width: int, target: Target) -> Window:
        """The whole picture, scaled."""
        return _whole(height, width, (self.size or target.size) / max(height, width))


class ShortestSide(LongestSide):
    """Scale so that the shorter side has a size; the proportions stay.

    The longer side gets at most 8,192 pixels, so that a very long picture does not fill the memory.
    """

    def window(self, drawn: Drawn, height: int, width: int, target: Target) -> Window:
        """The whole picture, scaled."""
        factor = (self.size or target.size) / min(height, width)
        return _whole(height, width, min(factor, max(_LONGEST / max(height, width), 1.0)))


class Letterbox(Windowed):
    """Pad the shorter side with the fill colour to a square, the picture in its middle, and scale to the input."""

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Nothing is to choose."""
        return ()

    def window(self, drawn: Drawn, height: int, width: int, target: Target) -> Window:
        """The smallest square around the picture."""
        side = max(height, width)
        return Window((height - side) // 2, (width - side) // 2, side, side, target.size, target.size)
