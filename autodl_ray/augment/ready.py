"""The published policies, built on the catalogue: AutoAugment, RandAugment, TrivialAugment and AugMix.

Their tables come from the papers. Where a paper draws a level from a grid, the amount is drawn evenly from the same
range; where it flips the sign of an amount at random, so is it here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from pydantic import Field

from autodl_ray.augment.catalogue import CATALOGUE
from autodl_ray.augment.nodes import Blend, Chain, Node, OneOf, Recipe, SomeOf, Step

__all__ = ["READY", "AugMix", "AutoAugment", "RandAugment", "TrivialAugment"]

_SIGNED: Mapping[str, str] = MappingProxyType(
    {"Rotate": "degrees", "ShearX": "degrees", "ShearY": "degrees", "TranslateX": "share", "TranslateY": "share"}
)
_FACTORS = ("Brightness", "Contrast", "Saturation", "Sharpness")
_PLAIN = ("AutoContrast", "Equalize", "Invert")
_LIMITS: Mapping[str, float] = MappingProxyType({"Rotate": 180.0, "ShearX": 80.0, "ShearY": 80.0})


def _step(name: str, probability: float = 1.0, /, **params: object) -> Step:
    return Step(CATALOGUE[name].model_validate(params), probability)


def _within(name: str, most: float) -> Step:
    """An amount from -most to most (of a factor: 1 - most to 1 + most)."""
    if name in _FACTORS:
        return _step(name, factor=(max(0.0, 1 - most), 1 + most))
    most = min(most, _LIMITS.get(name, 1.0))
    return _step(name, **{_SIGNED[name]: (-most, most)})


def _exactly(name: str, amount: float, probability: float = 1.0) -> Node:
    """The amount or its opposite, evenly (of a factor: 1 + amount or 1 - amount)."""
    if name in _FACTORS:
        signed = [_step(name, factor=(f, f)) for f in (1 + amount, max(0.0, 1 - amount))]
    else:
        amount = min(amount, _LIMITS.get(name, 1.0))
        signed = [_step(name, **{_SIGNED[name]: (a, a)}) for a in (amount, -amount)]
    return OneOf(tuple(signed), (1.0, 1.0), probability)


def _lean(factor: float) -> float:
    """The papers lean by a factor of the height; the catalogue by an angle in degrees."""
    return math.degrees(math.atan(factor))


# Largest amounts of Cubuk et al. 2019 (Table 6), at level 10 of 10; shifts are 150 of 331 px, leans factors of 0.3.
_CUBUK: Mapping[str, float] = MappingProxyType(
    {
        "ShearX": _lean(0.3),
        "ShearY": _lean(0.3),
        "TranslateX": 150 / 331,
        "TranslateY": 150 / 331,
        "Rotate": 30.0,
        "Brightness": 0.9,
        "Contrast": 0.9,
        "Saturation": 0.9,
        "Sharpness": 0.9,
    }
)


def _at_level(name: str, share: float, probability: float = 1.0) -> Node:
    """One operation at ``share`` (0 to 1) of its largest amount in Cubuk et al."""
    if name in _PLAIN:
        return _step(name, probability)
    if name == "Posterize":
        bits = 8 - round(4 * share)
        return _step(name, probability, bits=(bits, bits))
    if name == "Solarize":
        threshold = round(255 * (1 - share))
        return _step(name, probability, threshold=(threshold, threshold))
    return _exactly(name, _CUBUK[name] * share, probability)


_Pair = tuple[tuple[str, float, int], tuple[str, float, int]]

_IMAGENET: tuple[_Pair, ...] = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 4), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 7)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 2)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 8), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Saturation", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 2)),
    (("Equalize", 0.0, 7), ("Equalize", 0.8, 8)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Saturation", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Saturation", 1.0, 2)),
    (("Saturation", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 8)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 9)),
    (("Saturation", 0.4, 0), ("Equalize", 0.6, 3)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Saturation", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
)


class AutoAugment(Recipe):
    """The ImageNet policy of AutoAugment: one of 25 pairs (Cubuk et al., AutoAugment, 2019, Table 9)."""

    name: ClassVar[str] = "auto_augment"
    strength: float = Field(1.0, ge=0, le=2, description="factor of every amount, 0 to 2; 1: as published")

    def nodes(self) -> tuple[Node, ...]:
        """One of the 25, evenly; each part with its own probability."""
        pairs = tuple(Chain(tuple(self._part(*part) for part in pair)) for pair in _IMAGENET)
        return (OneOf(pairs, (1.0,) * len(pairs)),)

    def _part(self, name: str, probability: float, level: int) -> Node:
        return _at_level(name, min(1.0, level / 9 * self.strength), probability)

    def scaled(self, factor: float) -> AutoAugment:
        """Return it with that many times the strength, at most 2."""
        return AutoAugment(strength=min(2.0, self.strength * factor))


_RAND = (
    "AutoContrast",
    "Equalize",
    "Rotate",
    "Solarize",
    "Saturation",
    "Posterize",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)


class RandAugment(Recipe):
    """Some operations in a row, all at one magnitude (Cubuk et al., RandAugment, 2020)."""

    name: ClassVar[str] = "rand_augment"
    num_ops: int = Field(2, ge=0, le=14, description="operations in a row, 0 to 14")
    magnitude: float = Field(9.0, ge=0, le=30, description="0 to 30: share of the largest amount, in thirtieths")

    def nodes(self) -> tuple[Node, ...]:
        """``num_ops`` times one of 14 (the identity among them)."""
        choices = (Chain(()), *(_at_level(name, self.magnitude / 30) for name in _RAND))
        return (SomeOf(choices, self.num_ops, self.num_ops, replace=True),)

    def scaled(self, factor: float) -> RandAugment:
        """Return it at that many times the magnitude, at most 30."""
        return RandAugment(num_ops=self.num_ops, magnitude=min(30.0, self.magnitude * factor))


# The wide space of Müller & Hutter; its shift of 32 px is taken as a share of their 224 px.
_WIDE: Mapping[str, float] = MappingProxyType(
    {
        "ShearX": _lean(0.99),
        "ShearY": _lean(0.99),
        "TranslateX": 32 / 224,
        "TranslateY": 32 / 224,
        "Rotate": 135.0,
        "Brightness": 0.99,
        "Contrast": 0.99,
        "Saturation": 0.99,
        "Sharpness": 0.99,
    }
)


class TrivialAugment(Recipe):
    """One operation, at any magnitude (Müller & Hutter, TrivialAugment, 2021, wide space)."""

    name: ClassVar[str] = "trivial_augment"
    strength: float = Field(1.0, ge=0, le=2, description="factor of every range, 0 to 2; 1: as published")

    def nodes(self) -> tuple[Node, ...]:
        """One of 14 (the identity among them)."""
        choices = (Chain(()), *(self._choice(name) for name in _RAND))
        return (OneOf(choices, (1.0,) * len(choices)),)

    def _choice(self, name: str) -> Node:
        if name in _PLAIN:
            return _step(name)
        if name == "Posterize":
            return _step(name, bits=(max(1, 8 - round(6 * self.strength)), 8))
        if name == "Solarize":
            return _step(name, threshold=(max(0, round(255 * (1 - self.strength))), 255))
        return _within(name, _WIDE[name] * self.strength)

    def scaled(self, factor: float) -> TrivialAugment:
        """Return it with that many times the strength, at most 2."""
        return TrivialAugment(strength=min(2.0, self.strength * factor))


_MIXED = (
    "AutoContrast",
    "Equalize",
    "Posterize",
    "Rotate",
    "Solarize",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)


class AugMix(Recipe):
    """Random chains blended with the picture (Hendrycks et al., AugMix, 2020; without its consistency loss)."""

    name: ClassVar[str] = "augmix"
    moves_pixels: ClassVar[bool] = False  # the picture itself stays where it is, under its moved copies
    severity: float = Field(3.0, ge=0, le=10, description="0 to 10: largest amounts, in tenths")
    width: int = Field(3, ge=1, le=10, description="chains, 1 to 10")
    depth: int = Field(3, ge=1, le=10, description="most operations of a chain, 1 to 10")
    alpha: float = Field(1.0, gt=0, le=10, description="of the random weights, above 0 to 10; 1: even")

    def nodes(self) -> tuple[Node, ...]:
        """One blend."""
        return (Blend(tuple(map(self._choice, _MIXED)), self.width, (1, self.depth), self.alpha),)

    def _choice(self, name: str) -> Node:
        share = self.severity / 10
        if name in _PLAIN:
            return _step(name)
        if name == "Posterize":
            return _step(name, bits=(max(1, 4 - int(4 * share)), 4))
        if name == "Solarize":
            return _step(name, threshold=(round(255 * (1 - share)), 255))
        most = {"TranslateX": 1 / 3, "TranslateY": 1 / 3}.get(name, _CUBUK[name])
        return _within(name, most * share)

    def scaled(self, factor: float) -> AugMix:
        """Return it with that many times the severity, at most 10."""
        params = self.model_dump()
        return AugMix.model_validate({**params, "severity": min(10.0, self.severity * factor)})


READY: Mapping[str, type[Recipe]] = MappingProxyType(
    {recipe.name: recipe for recipe in (AutoAugment, RandAugment, TrivialAugment, AugMix)}
)
"""The ready policies by the name that a policy file uses."""
