"""Faults of boxes: without area, swapped, outside of the picture, tiny, there twice; pictures without any."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from autodl_ray.data.cleaning.findings import Finding, finding
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.records import Box

__all__ = ["TINY_SHARE", "TINY_SIDE", "clip_box", "find_box_faults", "same_box"]

TINY_SIDE = 4.0
"""A box with a side below this many pixels is hard to learn from."""

TINY_SHARE = 1e-4
"""So is one that covers less of its picture than this."""

_ROUNDING = 1.0
"""Annotations count pixels from 0 or from 1: one pixel past the edge is no fault."""

_SAME_IOU = 0.95


def find_box_faults(subject: Subject) -> Iterator[Finding]:
    """Yield the faults of all boxes of the readable pictures."""
    bare = []
    for i in subject.good:
        record, fact = subject.listing.records[i], subject.facts[i]
        if record.boxes is None:
            continue
        splits = subject.splits_of([i])
        if not record.boxes:
            bare.append(record.path)
        for number, box in enumerate(record.boxes):
            said = _fault(box, fact.width, fact.height)
            if said is not None:
                yield finding(said[0], [record.path], said[1], box=number, label=box.label, splits=splits)
        for first, second in _repeated(record.boxes):
            said_twice = f"Boxes {first} and {second} ({record.boxes[first].label}) cover the same place."
            yield finding(
                "box_duplicate", [record.path], said_twice, box=second, label=record.boxes[first].label, splits=splits
            )
    if bare:
        yield finding("no_boxes", bare, f"{len(bare)} pictures have no box: they teach what is background.")


def _fault(box: Box, width: int, height: int) -> tuple[str, str] | None:
    where = f"{box.label} ({box.xmin:g}, {box.ymin:g}, {box.xmax:g}, {box.ymax:g})"
    if not all(math.isfinite(value) for value in box[1:5]):
        return "box_empty", f"{where} is no box: an edge is not a number."
    if box.xmax < box.xmin or box.ymax < box.ymin:
        return "box_inverted", f"{where} ends before it begins."
    if box.xmax == box.xmin or box.ymax == box.ymin:
        return "box_empty", f"{where} has no area."
    if not width or not height:  # the picture was hashed and not decoded: its size is not known
        return None
    inside = clip_box(box, width, height)
    if inside is None:
        return "box_empty", f"{where} lies outside of the picture of {width} × {height} px."
    if max(-box.xmin, -box.ymin, box.xmax - width, box.ymax - height) > _ROUNDING:
        return "box_outside", f"{where} leaves the picture of {width} × {height} px."
    area = (inside.xmax - inside.xmin) * (inside.ymax - inside.ymin)
    side = min(inside.xmax - inside.xmin, inside.ymax - inside.ymin)
    if side < TINY_SIDE or area < TINY_SHARE * width * height:
        return "box_tiny", f"{where} has a side of {side:g} px and covers {area / (width * height):.4%} of the picture."
    return None


def clip_box(box: Box, width: int, height: int) -> Box | None:
    """Return the part of a box that lies within the picture, its edges in order; None where nothing is left."""
    if not all(math.isfinite(value) for value in box[1:5]):
        return None
    left, right = sorted((box.xmin, box.xmax))
    top, bottom = sorted((box.ymin, box.ymax))
    left, top, right, bottom = max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)
    if right <= left or bottom <= top:
        return None
    return box._replace(xmin=left, ymin=top, xmax=right, ymax=bottom)


def _repeated(boxes: Sequence[Box]) -> Iterator[tuple[int, int]]:
    """Pairs of one class that are as good as equal; sorted by the left edge, so that few are compared."""
    order = sorted(range(len(boxes)), key=lambda i: boxes[i].xmin)
    found: set[int] = set()
    for position, i in enumerate(order):
        for j in order[position + 1 :]:
            if boxes[j].xmin - boxes[i].xmin > (1 - _SAME_IOU) * (boxes[i].xmax - boxes[i].xmin):
                break
            second = max(i, j)
            if second not in found and same_box(boxes[i], boxes[j]):
                found.add(second)
                yield min(i, j), second


def same_box(one: Box, other: Box) -> bool:
    """Whether two boxes have one class and overlap by at least 0.95 of their union."""
    if one.label != other.label:
        return False
    width = min(one.xmax, other.xmax) - max(one.xmin, other.xmin)
    height = min(one.ymax, other.ymax) - max(one.ymin, other.ymin)
    if width <= 0 or height <= 0:
        return False
    areas = [(box.xmax - box.xmin) * (box.ymax - box.ymin) for box in (one, other)]
    both = width * height
    return both >= _SAME_IOU * (sum(areas) - both)
