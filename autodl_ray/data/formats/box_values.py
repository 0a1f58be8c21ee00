"""Boxes in the shapes that tables and JSON files give them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autodl_ray.data.formats.reading import as_label, as_number
from autodl_ray.data.records import Box

__all__ = ["add_extent", "boxes_of", "flag", "make_box"]

_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))
_LABELS = ("label", "class", "category", "name")
Naming = Callable[[Any], str | None]


def flag(value: Any) -> bool:
    """Return whether a flag is set, written as a number, a text or a truth value."""
    if isinstance(value, str):
        return value.strip().casefold() in ("1", "true", "yes", "t", "1.0")
    return value is True or (isinstance(value, int | float) and value == 1)


def boxes_of(value: Any, label: str | None, name: Naming = as_label) -> tuple[list[Box], list[str]]:
    """Return the boxes that a cell gives, and what is wrong with the others.

    Accepted: a list (also as JSON text) of objects with ``label`` and ``xmin, ymin, xmax, ymax``, or with ``bbox``
    (``[x, y, width, height]``, as COCO has it); a list of ``[xmin, ymin, xmax, ymax]`` or
    ``[xmin, ymin, xmax, ymax, label]``; and ``{"bbox": [[x, y, width, height], …], "category": […]}``.

    Args:
        value: The cell.
        label: Class of boxes that have none of their own.
        name: Turns a class into its name.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except (ValueError, RecursionError):
            return [], ["the boxes are no JSON"]
    if isinstance(value, Mapping):
        value = _columns(value)
    if value is None:
        return [], []
    if not isinstance(value, Sequence) or isinstance(value, bytes | str):
        return [], ["the boxes are no list"]
    if value and all(as_number(item) is not None for item in value) and len(value) == 4:
        value = [value]  # one box alone
    boxes, wrong = [], []
    for number, item in enumerate(value, start=1):
        box = _box(item, label, name)
        if box is None:
            wrong.append(f"box {number} cannot be read: {str(item)[:80]}")
        else:
            boxes.append(box)
    return boxes, wrong


def _columns(value: Mapping[str, Any]) -> Any:
    """Turn lists by name, as Hugging Face's ``objects`` are, into one object a box."""
    boxes = value.get("bbox", value.get("bboxes"))
    labels = next((value[key] for key in (*_LABELS, "categories", "labels") if key in value), None)
    if not isinstance(boxes, Sequence):
        return "no list"
    if not isinstance(labels, Sequence) or isinstance(labels, str):
        labels = [None] * len(boxes)
    if len(labels) != len(boxes):
        return "no list"
    return [{"bbox": box, "label": label} for box, label in zip(boxes, labels, strict=True)]


def _box(item: Any, label: str | None, name: Naming) -> Box | None:
    flags = (False, False)
    if isinstance(item, Mapping):
        own = next((item[key] for key in _LABELS if item.get(key) is not None), None)
        label = label if own is None else name(own)
        flags = (flag(item.get("difficult")), flag(item.get("crowd", item.get("iscrowd"))))
        corners = _corners(item)
    elif isinstance(item, Sequence) and not isinstance(item, str | bytes) and len(item) in (4, 5):
        label = label if len(item) == 4 else name(item[4])
        corners = [as_number(side) for side in item[:4]]
    else:
        return None
    return make_box(label, corners, flags)


def make_box(label: str | None, sides: Sequence[float | None], flags: tuple[bool, bool]) -> Box | None:
    """Return a box, or None when its class or one of its four sides is missing.

    Args:
        label: Class.
        sides: xmin, ymin, xmax, ymax.
        flags: difficult, crowd.
    """
    if label is None or len(sides) != 4:
        return None
    xmin, ymin, xmax, ymax = sides
    if xmin is None or ymin is None or xmax is None or ymax is None:
        return None
    return Box(label, xmin, ymin, xmax, ymax, *flags)


def _corners(item: Mapping[str, Any]) -> list[float | None]:
    for names in _CORNERS:
        if all(key in item for key in names):
            return [as_number(item[key]) for key in names]
    box = item.get("bbox")
    if isinstance(box, Sequence) and not isinstance(box, str) and len(box) == 4:
        x, y, width, height = (as_number(side) for side in box)
        if x is not None and y is not None and width is not None and height is not None:
            return [x, y, add_extent(x, width), add_extent(y, height)]
    return []


def add_extent(low: float, extent: float) -> float:
    """Add as people do who write decimals: 17.4 and 90.8 make 108.2, not 108.19999999999999."""
    plain = low + extent
    if not math.isfinite(plain):
        return plain
    decimal = round(plain, 9)
    return decimal if abs(decimal - plain) <= 2 * math.ulp(max(abs(low), abs(extent), abs(plain))) else plain
