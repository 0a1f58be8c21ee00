"""The policies that have a short name, each for photos and for tiny pictures, at any magnitude."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from autodl_ray.augment.catalogue import CATALOGUE
from autodl_ray.augment.nodes import Node, Ready, Recipe, Step
from autodl_ray.augment.ready import AugMix, AutoAugment, RandAugment, TrivialAugment

__all__ = ["AS_WRITTEN", "PRESETS", "TABLE_DOCS", "TINY_SIDE"]

Row = tuple[str, dict[str, Any], float]
Nodes = tuple[Node, ...]
Preset = Callable[[float], tuple[Nodes, Nodes | None]]

TINY_SIDE = 64
"""Pictures up to this many pixels a side are digits, icons and the like: no flips, no hard crops."""

AS_WRITTEN = 0.5
"""The magnitude at which a policy is done as it is written; 1 is twice that."""

_LEAST_AREA = 0.08  # of a crop, as the Inception papers have it

_LIGHT: tuple[Row, ...] = (
    ("RandomResizedCrop", {"scale": (0.5, 1.0), "ratio": (0.75, 1.33)}, 1.0),
    ("HorizontalFlip", {}, 0.5),
    ("ColorJitter", {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}, 0.8),
)
_STRONG: tuple[Row, ...] = (
    ("RandomResizedCrop", {"scale": (0.25, 1.0), "ratio": (0.75, 1.33)}, 1.0),
    ("HorizontalFlip", {}, 0.5),
    ("RandomRotate", {"degrees": 15}, 0.5),
    ("ColorJitter", {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.05}, 0.8),
    ("Grayscale", {}, 0.05),
    ("GaussianBlur", {"sigma": (0.1, 1.5)}, 0.1),
    ("RandomErasing", {"scale": (0.02, 0.2)}, 0.25),
)
_TINY: tuple[Row, ...] = (
    ("RandomRotate", {"degrees": 10}, 0.5),
    ("RandomShift", {"fraction": 0.125}, 1.0),
)
_TINY_STRONG: tuple[Row, ...] = (
    ("RandomRotate", {"degrees": 15}, 0.8),
    ("RandomShift", {"fraction": 0.125}, 1.0),
    ("ColorJitter", {"brightness": 0.3, "contrast": 0.3}, 0.8),
    ("RandomErasing", {"scale": (0.02, 0.15)}, 0.25),
)
# What the papers put before their policies, and for tiny pictures what takes its place.
_BEFORE: tuple[Row, ...] = (
    ("RandomResizedCrop", {"scale": (0.25, 1.0), "ratio": (0.75, 1.33)}, 1.0),
    ("HorizontalFlip", {}, 0.5),
)
_TINY_BEFORE: tuple[Row, ...] = (("RandomShift", {"fraction": 0.125}, 1.0),)


def _scaled(row: Row, factor: float) -> Step:
    """One step of a table, ``factor`` times as strong: its amounts where it has any, else its probability."""
    name, params, probability = row
    if name == "RandomResizedCrop":
        params = _scaled_crop(params, factor)
    elif name == "ColorJitter":
        params = {key: min(value * factor, 0.5 if key == "hue" else 1.0) for key, value in params.items()}
    elif name == "RandomRotate":
        params = {"degrees": min(180.0, params["degrees"] * factor)}
    elif name == "RandomShift":
        params = {"fraction": min(1.0, params["fraction"] * factor)}
    elif name != "HorizontalFlip":  # half of the pictures mirrored is the most there is
        probability = min(1.0, probability * factor)
    return Step(CATALOGUE[name].model_validate(params), probability)


def _scaled_crop(params: dict[str, Any], factor: float) -> dict[str, Any]:
    low = max(_LEAST_AREA, 1 - (1 - params["scale"][0]) * factor)
    narrow, wide = params["ratio"]
    return {"scale": (low, 1.0), "ratio": (narrow**factor, wide**factor)}


def _from_tables(photo: tuple[Row, ...], tiny: tuple[Row, ...] | None, magnitude: float) -> tuple[Nodes, Nodes | None]:
    factor = magnitude / AS_WRITTEN
    made = None if tiny is None else tuple(_scaled(row, factor) for row in tiny)
    return tuple(_scaled(row, factor) for row in photo), made


def _published(recipe: Recipe, magnitude: float) -> tuple[Nodes, Nodes | None]:
    """A published policy behind the usual crop and flip, which are as they are at every magnitude."""
    ready = Ready(recipe.scaled(magnitude / AS_WRITTEN))
    before, tiny_before = (tuple(_scaled(row, 1.0) for row in rows) for rows in (_BEFORE, _TINY_BEFORE))
    return (*before, ready), (*tiny_before, ready)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "none": partial(_from_tables, (), None),
        "light": partial(_from_tables, _LIGHT, _TINY),
        "strong": partial(_from_tables, _STRONG, _TINY_STRONG),
        "tiny": partial(_from_tables, _TINY, None),
        "auto_augment": partial(_published, AutoAugment()),
        "rand_augment": partial(_published, RandAugment()),
        "trivial_augment": partial(_published, TrivialAugment()),
        "augmix": partial(_published, AugMix()),
    }
)
"""Short name → magnitude in [0, 1] → steps for photos, and for tiny pictures (None: the same)."""

TABLE_DOCS: Mapping[str, str] = MappingProxyType(
    {
        "light": "Crop, flip, a little colour: for fine-tuning on photos; tiny pictures are turned and shifted.",
        "strong": "Hard crop, flip, turn, much colour, blur, erasing: for small sets and long trainings.",
        "tiny": "A small turn and shift, at every size: for digits, icons and the like.",
    }
)
"""What the policies that are not a paper's are for."""
