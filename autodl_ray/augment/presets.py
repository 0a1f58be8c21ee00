"""The ready policies, as tables of (operation, parameters, probability)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["PRESETS", "TINY_PRESETS", "TINY_SIDE"]

Row = tuple[str, dict[str, Any], float]

TINY_SIDE = 64
"""Pictures up to this many pixels a side are digits, icons and the like: no flips, no hard crops."""

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

PRESETS: Mapping[str, tuple[Row, ...]] = MappingProxyType(
    {"none": (), "light": _LIGHT, "strong": _STRONG, "tiny": _TINY}
)
TINY_PRESETS: Mapping[str, tuple[Row, ...]] = MappingProxyType({"light": _TINY, "strong": _TINY_STRONG})
