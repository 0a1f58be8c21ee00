"""Operations that keep straight lines straight: turn, shear, zoom, perspective."""

from __future__ import annotations

import math
import random
from typing import Annotated

import numpy as np
from pydantic import Field

from autodl_ray.augment.op import Boxes, Drawn, Mask, Target
from autodl_ray.augment.ops.fields import Angle, Angles, Border, Leans, Positives
from autodl_ray.augment.ops.mirrored import mirror, mirror_boxes
from autodl_ray.augment.ops.mirrors import quarter_turns
from autodl_ray.augment.ops.warped import Floats, Warp, Warped
from autodl_ray.images import ImageArray

__all__ = [
    "Affine",
    "Perspective",
    "RandomRotate",
    "RandomZoom",
    "Rotate",
    "SafeRotate",
    "ShearX",
    "ShearY",
]


def _around_centre(linear: Floats, height: int, width: int, shift: tuple[float, float] = (0.0, 0.0)) -> Floats:
    """Return the (3, 3) map that is ``linear`` (2, 2) around the picture's centre, then shifted by pixels."""
    (a, b), (c, d) = linear.tolist()
    x, y = width / 2, height / 2
    return np.array([[a, b, x - a * x - b * y + shift[0]], [c, d, y - c * x - d * y + shift[1]], [0.0, 0.0, 1.0]])


def _turn(degrees: float) -> Floats:
    angle = math.radians(degrees)  # counter-clockwise to the eye, while y points down
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


class Rotate(Warped):
    """Turn counter-clockwise by any angle; the size stays, so that corners are lost."""

    degrees: Angles = Field((-30.0, 30.0), description="degrees, as [low, high] in [-360, 360]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (angle,), in degrees."""
        return (rng.uniform(*self.degrees),)

    def warp(self, drawn: Drawn, height: int, width: int) -> Warp:
        """Around the centre."""
        return Warp(_around_centre(_turn(drawn[0]), height, width), height, width)


class SafeRotate(Rotate):
    """Turn by any angle, and make the picture so much smaller that no corner is lost; the size stays."""

    def warp(self, drawn: Drawn, height: int, width: int) -> Warp:
        """Around the centre, scaled."""
        turn = _turn(drawn[0])
        needed = np.abs(turn) @ (width, height)
        fits = min(1.0, width / needed[0], height / needed[1])
        return Warp(_around_centre(turn * fits, height, width), height, width)


class RandomRotate(Warped):
    """Turn the picture counter-clockwise.

    Quarter turns are exact and exchange the sides of a picture that is not square; other angles keep the sides, and
    the corners come from ``border``.
    """

    degrees: Annotated[float, Field(ge=0, le=180)] | Annotated[tuple[Angle, ...], Field(min_length=1)] = Field(
        15.0, description="a number 0 to 180 (an angle between -number and number), or a list (one of these angles)"
    )
    border: Border = Field("edge", description="edge (corners repeat the edge's pixels) or fill (the mean colour)")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (angle,), in degrees."""
        if isinstance(self.degrees, tuple):
            return (rng.choice(self.degrees),)
        return (rng.uniform(-self.degrees, self.degrees),)

    def warp(self, drawn: Drawn, height: int, width: int) -> Warp:
        """Around the centre."""
        return Warp(_around_centre(_turn(drawn[0]), height, width), height, width)

    def apply(self, image: ImageArray, drawn: Drawn, target: Target) -> ImageArray:
        """Turn; by quarters exactly."""
        if drawn[0] % 90 == 0:
            return mirror(image, quarter_turns(round(drawn[0] / 90)))
        return super().apply(image, drawn, target)

    def apply_mask(self, mask: Mask, drawn: Drawn, target: Target) -> Mask:
        """Turn; by quarters exactly."""
        if drawn[0] % 90 == 0:
            return mirror(mask, quarter_turns(round(drawn[0] / 90)))
        return super().apply_mask(mask, drawn, target)

    def move_boxes(self, boxes: Boxes, drawn: Drawn, *, height: int, width: int, target: Target) -> Boxes:
        """Turn; by quarters exactly."""
        if drawn[0] % 90 == 0:
            return mirror_boxes(boxes, quarter_turns(round(drawn[0] / 90)), height=height, width=width)
        return super().move_boxes(boxes, drawn, height=height, width=width, target=target)


class ShearX(Warped):
    """Lean the picture to one side: rows move left and right, the middle row stays."""

    degrees: Leans = Field((-15.0, 15.0), description="angle of the lean, as [low, high] in [-80, 80] degrees")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (angle,), in degrees."""
        return (rng.uniform(*self.degrees),)

    def warp(self, drawn: Drawn, height: int, width: int) -> Warp:
        """Around the centre."""
        lean = np.array([[1, math.tan(math.radians(drawn[0]))], [0, 1]])
        return Warp(_around_centre(lean, height, width), height, width)


class ShearY(ShearX):
    """Lean the picture up or down: columns move up and down, the middle column stays."""

    def warp(self, drawn: Drawn, height: int, width: int) -> Warp:
        """Around the centre."""
        lean = np.array([[1, 0], [math.tan(math.radians(drawn[0])), 1]])
        return Warp(_around_centre(lean, height, width), height, width)


class RandomZoom(Warped):
    """Come nearer (above 1) or go back, the size stays."""

    factor: Positives = Field((0.8, 1.25), description="factor of the zoom, as [low, high] in (0, 100]")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (factor,): nearer and farther are equally likely."""
        return (math.exp(rng.uniform(math.log(self.factor[0]), math.log(self.factor[1]))),)

    def warp(self, drawn: Drawn, height: int, width: int) -> Warp:
        """Around the centre."""
        return Warp(_around_centre(np.eye(2) * drawn[0], height, width), height, width)


class Affine(Warped):
    """Turn, zoom, shift and lean at once, each by a random amount."""

    degrees: float = Field(15.0, ge=0, le=180, description="0 to 180: angle between -value and value")
    scale: Positives = Field((0.9, 1.1), description="factor of the zoom, as [low, high] in (0, 100]")
    shift: float = Field(0.1, ge=0, le=1, description="0 to 1: largest shift as a share of the side")
    shear: float = Field(5.0, ge=0, le=80, description="0 to 80: lean between -value and value, in degrees")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (angle, zoom, shift right, shift down, lean): degrees, factor, shares, degrees."""
        return (
            rng.uniform(-self.degrees, self.degrees),
            math.exp(rng.uniform(math.log(self.scale[0]), math.log(self.scale[1]))),
            rng.uniform(-self.shift, self.shift),
            rng.uniform(-self.shift, self.shift),
            rng.uniform(-self.shear, self.shear),
        )

    def warp(self, drawn: Drawn, height: int, width: int) -> Warp:
        """One matrix of all four."""
        angle, zoom, right, down, lean = drawn
        linear = zoom * _turn(angle) @ np.array([[1, math.tan(math.radians(lean))], [0, 1]])
        return Warp(_around_centre(linear, height, width, (right * width, down * height)), height, width)


class Perspective(Warped):
    """See the picture from another place: each corner moves inwards by its own amount."""

    strength: float = Field(
        0.2, ge=0, le=0.8, description="0 to 0.8: most that a corner moves, as a share of half a side"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (right, down) of each corner, inwards, as shares of half a side; clockwise from the upper left."""
        return tuple(rng.uniform(0, self.strength) for _ in range(8))

    def warp(self, drawn: Drawn, height: int, width: int) -> Warp:
        """The four corners go where they were drawn to; the four are always a convex figure (strength below 1)."""
        inwards = np.array(drawn).reshape(4, 2) / 2 * (width, height)
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
        return Warp(_projective(corners, corners + inwards * [[1, 1], [-1, 1], [-1, -1], [1, -1]]), height, width)


def _projective(source: Floats, goal: Floats) -> Floats:
    """Return the (3, 3) map that takes four points (4, 2) to four others."""
    rows = [
        row
        for (x, y), (u, v) in zip(source, goal, strict=True)
        for row in ([x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y])
    ]
    return np.append(np.linalg.solve(np.array(rows), goal.reshape(8)), 1.0).reshape(3, 3)
