"""Operations that bend the picture: elastic, grid, lens."""

from __future__ import annotations

import random
from abc import abstractmethod
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from autodl_ray.augment.op import Boxes, Drawn, Target
from autodl_ray.augment.ops.chance import uniform
from autodl_ray.augment.ops.displaced import Displaced
from autodl_ray.augment.ops.fields import MAX_REMAPPED, ordered

__all__ = ["ElasticTransform", "GridDistortion", "Nodes", "OpticalDistortion", "PiecewiseAffine"]

_Cells = Annotated[int, Field(ge=1, le=32)]
_Bend = Annotated[float, Field(ge=-0.3, le=0.3)]
_Strength = Annotated[float, Field(ge=0, le=0.2)]


class Nodes(Displaced):
    """An operation that moves the nodes of a grid by chance, and what is between them accordingly."""

    cells: Annotated[tuple[_Cells, _Cells], AfterValidator(ordered)] = Field(
        (3, 6), description="cells of the grid a side, as [low, high] of 1 to 32"
    )
    strength: Annotated[tuple[_Strength, _Strength], AfterValidator(ordered)] = Field(
        (0.05, 0.15), description="largest move of a node as a share of a cell, as [low, high] in [0, 0.2]"
    )

    @abstractmethod
    def between(self) -> int:
        """Say how to interpolate between the nodes, as OpenCV numbers it."""

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (cells a side, largest move as a share of a cell, seed of the moves)."""
        return (rng.randint(*self.cells), rng.uniform(*self.strength), rng.getrandbits(32))

    def field(self, drawn: Drawn, height: int, width: int) -> npt.NDArray[np.float32]:
        """Draw the nodes' moves, and interpolate; so small a share of a cell cannot fold the picture."""
        count, strength, seed = int(drawn[0]) + 1, drawn[1], drawn[2]
        nodes = uniform(seed, (count, count, 2), low=-strength / count, high=strength / count)
        nodes *= np.array([width, height], dtype=np.float32)
        field = cv2.resize(nodes, (width, height), interpolation=self.between())
        return np.asarray(field, dtype=np.float32).reshape(height, width, 2)


class ElasticTransform(Nodes):
    """Bend the picture smoothly, as rubber (Simard et al. 2003)."""

    def between(self) -> int:
        """Smoothly."""
        return cv2.INTER_CUBIC


class PiecewiseAffine(Nodes):
    """Bend the picture with creases: each cell of a grid is stretched by itself."""

    def between(self) -> int:
        """With creases."""
        return cv2.INTER_LINEAR


class GridDistortion(Displaced):
    """Stretch and squeeze the columns and rows of a grid, each by its own amount."""

    cells: int = Field(5, ge=2, le=32, description="2 to 32: columns, and rows, of the grid")
    limit: float = Field(0.3, ge=0, le=0.8, description="0 to 0.8: change of a column's width, as a share of it")

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return the relative width of each column, then the relative height of each row."""
        return tuple(rng.uniform(1 - self.limit, 1 + self.limit) for _ in range(2 * self.cells))

    def field(self, drawn: Drawn, height: int, width: int) -> npt.NDArray[np.float32]:
        """The same for every row, and for every column."""
        field = np.empty((height, width, 2), dtype=np.float32)
        for axis, (side, sizes) in enumerate(self._axes(drawn, height, width)):
            at = np.arange(side) + 0.5
            moved = np.interp(at, *_knots(sizes, side)) - at
            field[:, :, axis] = moved if axis == 0 else moved[:, None]
        return field

    def move_boxes(self, boxes: Boxes, drawn: Drawn, *, height: int, width: int, target: Target) -> Boxes:
        """The inverse of the two piecewise linear maps: exact."""
        if max(height, width) > MAX_REMAPPED:
            return boxes
        moved = np.empty_like(boxes)
        for axis, (side, sizes) in enumerate(self._axes(drawn, height, width)):
            even, uneven = _knots(sizes, side)
            moved[:, axis::2] = np.interp(boxes[:, axis::2], uneven, even)
        return moved

    def _axes(self, drawn: Drawn, height: int, width: int) -> tuple[tuple[int, Drawn], tuple[int, Drawn]]:
        return (width, drawn[: self.cells]), (height, drawn[self.cells :])


def _knots(sizes: Drawn, side: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return where the cells' edges are in the result (even) and in the picture (uneven), in pixels."""
    edges = np.append(0.0, np.cumsum(sizes))
    return np.linspace(0, side, len(edges)), edges * (side / edges[-1])


class OpticalDistortion(Displaced):
    """Bend straight lines as a lens does: as a barrel (above 0) or a cushion."""

    bend: Annotated[tuple[_Bend, _Bend], AfterValidator(ordered)] = Field(
        (-0.15, 0.15), description="bend at the corners as a share of their distance, as [low, high] in [-0.3, 0.3]"
    )

    def draw(self, rng: random.Random, height: int, width: int) -> Drawn:
        """Return (bend,)."""
        return (rng.uniform(*self.bend),)

    def field(self, drawn: Drawn, height: int, width: int) -> npt.NDArray[np.float32]:
        """Outwards or inwards with the cube of the distance from the middle."""
        x = (np.arange(width, dtype=np.float32) + np.float32(0.5 - width / 2))[None, :]
        y = (np.arange(height, dtype=np.float32) + np.float32(0.5 - height / 2))[:, None]
        radius = (x * np.float32(2 / width)) ** 2 + (y * np.float32(2 / height)) ** 2  # 2 at the corners
        radius *= np.float32(drawn[0] / 2)
        return np.asarray(cv2.merge([radius * x, radius * y]), dtype=np.float32)
