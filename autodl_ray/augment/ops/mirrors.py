"""Operations that mirror and turn by quarters."""

from __future__ import annotations

import random

from autodl_ray.augment.op import Drawn
from autodl_ray.augment.ops.mirrored import Mirror, Mirrored

__all__ = ["HorizontalFlip", "RandomRotate90", "SquareSymmetry", "Transpose", "VerticalFlip", "quarter_turns"]


def quarter_turns(count: int) -> Mirror:
    """Return the symmetry that turns counter-clockwise ``count`` times by 90 degrees."""
    return (Mirror(), Mirror(transpose=True, flip_y=True), Mirror(flip_x=True, flip_y=True), Mirror(True, True))[
        count % 4
    ]


class HorizontalFlip(Mirrored):
    """Mirror left and right."""

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Nothing is to choose: the policy's probability says whether."""
        return ()

    def mirror(self, drawn: Drawn) -> Mirror:
        """Left and right."""
        return Mirror(flip_x=True)


class VerticalFlip(Mirrored):
    """Mirror top and bottom."""

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Nothing is to choose: the policy's probability says whether."""
        return ()

    def mirror(self, drawn: Drawn) -> Mirror:
        """Top and bottom."""
        return Mirror(flip_y=True)


class Transpose(Mirrored):
    """Exchange rows and columns: mirror at the diagonal."""

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Nothing is to choose: the policy's probability says whether."""
        return ()

    def mirror(self, drawn: Drawn) -> Mirror:
        """Rows and columns."""
        return Mirror(transpose=True)


class RandomRotate90(Mirrored):
    """Turn by 0, 90, 180 or 270 degrees counter-clockwise, each as likely; exact."""

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (number of quarter turns,)."""
        return (rng.randrange(4),)

    def mirror(self, drawn: Drawn) -> Mirror:
        """As often as drawn."""
        return quarter_turns(int(drawn[0]))


class SquareSymmetry(Mirrored):
    """Turn by quarters and mirror: one of the eight symmetries of the square, each as likely (D4)."""

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (transpose, flip left and right, flip top and bottom), each 0 or 1."""
        return tuple(rng.getrandbits(1) for _ in range(3))

    def mirror(self, drawn: Drawn) -> Mirror:
        """As drawn."""
        return Mirror(*(bool(value) for value in drawn))
