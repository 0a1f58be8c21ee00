"""Colour operations that follow the light: the axes of a picture's own colours, and the lamp's temperature."""

from __future__ import annotations

import random
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from autodl_ray.augment.op import Drawn
from autodl_ray.augment.ops.colour import LUMA, Linear, Matrix, scaled, shifted
from autodl_ray.augment.ops.fields import ordered
from autodl_ray.images import ImageArray

__all__ = ["ColorTemperature", "FancyPCA"]

_XYZ_TO_RGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)
_DAYLIGHT = 6500.0
_SAMPLE = 4096
_Kelvin = Annotated[float, Field(ge=1700, le=25000)]


class FancyPCA(Linear):
    """Shift the colour along the principal axes of the picture's colours (Krizhevsky et al. 2012)."""

    std: float = Field(0.1, ge=0, le=1, description="0 to 1: standard deviation of the share of each axis")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return a share of each of the three axes."""
        return tuple(rng.gauss(0, self.std) for _ in range(3))

    def matrix(self, image: ImageArray, drawn: Drawn) -> Matrix:
        """Shift; the axes come from at most some 4,096 pixels, evenly spread."""
        pixels = image.reshape(-1, 3)
        pixels = pixels[:: max(1, len(pixels) // _SAMPLE)].astype(np.float64)
        pixels -= pixels.mean(axis=0)
        values, axes = np.linalg.eigh(np.einsum("ni,nj->ij", pixels, pixels) / len(pixels))
        # The sign of an axis is the solver's choice: fix it, or another machine gives another picture.
        axes = axes * np.where(axes.sum(axis=0) < 0, -1, 1)
        return shifted(*(axes * np.sqrt(np.maximum(values, 0)) * drawn).sum(axis=1))


class ColorTemperature(Linear):
    """See the picture in warmer (below 6500 K) or colder light of a black body (Zini et al. 2023, Planckian jitter)."""

    kelvin: Annotated[tuple[_Kelvin, _Kelvin], AfterValidator(ordered)] = Field(
        (4000.0, 12000.0), description="temperature of the light in kelvin, as [low, high] in [1700, 25000]"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (temperature,), in kelvin; evenly spread in 1 / kelvin, as the eye sees it."""
        return (1 / rng.uniform(1 / self.kelvin[1], 1 / self.kelvin[0]),)

    def matrix(self, image: ImageArray, drawn: Drawn) -> Matrix:
        """Scale each channel by the light's colour against daylight."""
        gain = np.maximum(_black_body(drawn[0]) / _black_body(_DAYLIGHT), 0.01) ** (1 / 2.2)
        return scaled(*(gain / (gain @ LUMA)))


def _black_body(kelvin: float) -> Matrix:
    """Return the linear sRGB of a black body's light (Kim et al. 2002, cubic fit of the Planckian locus)."""
    t = 1000 / kelvin
    low = kelvin <= 4000
    warm, cold = (-0.2661239, -0.2343589, 0.8776956, 0.179910), (-3.0258469, 2.1070379, 0.2226347, 0.24039)
    x = np.polyval(warm if low else cold, t)
    if kelvin <= 2222:
        y = np.polyval((-1.1063814, -1.34811020, 2.18555832, -0.20219683), x)
    elif low:
        y = np.polyval((-0.9549476, -1.37418593, 2.09137015, -0.16748867), x)
    else:
        y = np.polyval((3.0817580, -5.87338670, 3.75112997, -0.37001483), x)
    return np.asarray(_XYZ_TO_RGB @ np.array([x / y, 1.0, (1 - x - y) / y]))
