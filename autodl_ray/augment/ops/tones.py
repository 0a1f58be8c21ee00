"""Colour operations that replace each value by another: curves, histograms, hue and value."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from typing import Annotated, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from autodl_ray.augment.op import Drawn, Family, Op, Target
from autodl_ray.augment.ops.colour import Linear, mean_grey
from autodl_ray.augment.ops.fields import Factors, Positives, ordered
from autodl_ray.images import ImageArray

__all__ = [
    "AutoContrast",
    "Brightness",
    "Contrast",
    "Equalize",
    "Invert",
    "Posterize",
    "RandomGamma",
    "RandomToneCurve",
    "Solarize",
    "Toned",
]

Values = npt.NDArray[np.float64]

_Threshold = Annotated[int, Field(ge=0, le=256)]
_Bits = Annotated[int, Field(ge=1, le=8)]


class Toned(Op):
    """An operation that looks every value up in a table."""

    family: ClassVar[Family] = "colour"

    @abstractmethod
    def table(self, image: ImageArray, drawn: Drawn) -> Values:
        """Return (256,) or, a column a channel, (256, 3): the new value of each value, of 0 to 255."""

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Look up."""
        table = np.clip(np.rint(self.table(image, drawn)), 0, 255).astype(np.uint8)
        if table.ndim == 2 and table.shape[1] == 3:
            return np.asarray(cv2.LUT(image, table.reshape(256, 1, 3)), dtype=np.uint8)
        return _translated(image, table.reshape(256))


def _translated(image: ImageArray, table: npt.NDArray[np.uint8]) -> ImageArray:
    """Look every byte up in one table, by stringzilla: 6 us for a photo of 256 x 192, against OpenCV's 33."""
    import stringzilla

    result = image.copy(order="C")
    stringzilla.translate(result.reshape(-1).data, table.data, inplace=True)
    return result


def _every_value() -> Values:
    return np.arange(256, dtype=np.float64)


class Brightness(Toned):
    """Make the picture brighter (factor above 1) or darker."""

    factor: Factors = Field((0.7, 1.3), description="factor of every value, as [low, high] in [0, 10]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (factor,)."""
        return (rng.uniform(*self.factor),)

    def table(self, image: ImageArray, drawn: Drawn) -> Values:
        """Scale."""
        return _every_value() * drawn[0]


class Contrast(Toned):
    """Push the values away from the mean grey (factor above 1) or towards it."""

    factor: Factors = Field((0.7, 1.3), description="factor of the distance, as [low, high] in [0, 10]; 0 is flat grey")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (factor,)."""
        return (rng.uniform(*self.factor),)

    def table(self, image: ImageArray, drawn: Drawn) -> Values:
        """Scale around the mean grey."""
        return drawn[0] * _every_value() + (1 - drawn[0]) * mean_grey(image)


class RandomGamma(Toned):
    """Make the middle values brighter (gamma below 1) or darker; black and white stay."""

    gamma: Positives = Field((0.7, 1.4), description="exponent of the value, as [low, high] in (0, 100]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (gamma,): brighter and darker are equally likely."""
        return (math.exp(rng.uniform(math.log(self.gamma[0]), math.log(self.gamma[1]))),)

    def table(self, image: ImageArray, drawn: Drawn) -> Values:
        """A power."""
        return np.asarray(255 * (_every_value() / 255) ** drawn[0])


class Posterize(Op):
    """Keep the upper bits of every value only."""

    family: ClassVar[Family] = "colour"
    bits: Annotated[tuple[_Bits, _Bits], AfterValidator(ordered)] = Field(
        (4, 7), description="bits that are kept, as [low, high] of 1 to 8"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (bits,)."""
        return (rng.randint(*self.bits),)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Cut the lower bits off."""
        return image & np.uint8(256 - 2 ** (8 - int(drawn[0])))


class Solarize(Toned):
    """Invert the values that are bright, from a threshold on."""

    threshold: Annotated[tuple[_Threshold, _Threshold], AfterValidator(ordered)] = Field(
        (128, 256), description="lowest value that is inverted, as [low, high] of 0 to 256"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (threshold,)."""
        return (rng.randint(*self.threshold),)

    def table(self, image: ImageArray, drawn: Drawn) -> Values:
        """Inverted from the threshold on."""
        values = _every_value()
        return np.where(values >= drawn[0], 255 - values, values)


class Invert(Op):
    """Make a negative."""

    family: ClassVar[Family] = "colour"

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Nothing is to choose: the policy's probability says whether."""
        return ()

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """From white to black."""
        return ~image


class RandomToneCurve(Toned):
    """Bend the curve of tones: shadows and lights become brighter or darker, each by itself."""

    std: float = Field(0.1, ge=0, le=1, description="0 to 1: standard deviation of the bend, as a share of the range")
    per_channel: bool = Field(False, description="true or false: whether red, green and blue get curves of their own")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (height of the curve in the shadows, in the lights), for one or three channels."""
        count = 3 if self.per_channel else 1
        return tuple(min(1.0, max(0.0, rng.gauss(middle, self.std))) for _ in range(count) for middle in (1 / 3, 2 / 3))

    def table(self, image: ImageArray, drawn: Drawn) -> Values:
        """A cubic Bézier curve, whose two inner points were drawn."""
        t = _every_value()[:, None] / 255
        shadows, lights = np.array(drawn[::2]), np.array(drawn[1::2])
        return np.asarray(255 * (3 * (1 - t) ** 2 * t * shadows + 3 * (1 - t) * t**2 * lights + t**3))


class AutoContrast(Linear):
    """Stretch each channel so that its darkest value becomes 0 and its brightest 255."""

    cutoff: float = Field(
        0.0, ge=0, le=0.4, description="0 to 0.4: share of the pixels at each end that may be cut off"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Nothing is to choose: the policy's probability says whether."""
        return ()

    def matrix(self, image: ImageArray, drawn: Drawn) -> Values:
        """A straight line a channel; a channel of one value stays."""
        low, high = _ends(image, self.cutoff)
        scale = np.where(high > low, 255 / np.maximum(high - low, 1), 1.0)
        return np.column_stack([np.diag(scale), -scale * np.where(high > low, low, 0)])


def _ends(image: ImageArray, cutoff: float) -> tuple[Values, Values]:
    if cutoff == 0:
        # One axis after the other: a hundredth of the time that both at once take.
        low, high = image.min(axis=0).min(axis=0), image.max(axis=0).max(axis=0)
        return low.astype(np.float64), high.astype(np.float64)
    below = np.cumsum(_histograms(image), axis=0) / (image.shape[0] * image.shape[1])
    low = (below > cutoff).argmax(axis=0)
    high = (below >= 1 - cutoff).argmax(axis=0)
    return low.astype(np.float64), high.astype(np.float64)


def _histograms(image: ImageArray) -> Values:
    """Return (256, 3): pixels a value, a column a channel."""
    columns = [cv2.calcHist([image], [channel], None, [256], [0, 256]).reshape(256) for channel in range(3)]
    return np.stack(columns, axis=1).astype(np.float64)


class Equalize(Toned):
    """Make every value of a channel equally frequent."""

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Nothing is to choose: the policy's probability says whether."""
        return ()

    def table(self, image: ImageArray, drawn: Drawn) -> Values:
        """The share of pixels below each value; a channel of one value stays."""
        counts = _histograms(image)
        below = np.cumsum(counts, axis=0) - counts
        most = below[255 - (counts[::-1] > 0).argmax(axis=0), range(3)]  # below the brightest value that is there
        return np.where(most > 0, below * 255 / np.maximum(most, 1), _every_value()[:, None])
