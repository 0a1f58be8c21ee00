"""Boxes of pictures that were hashed and not decoded, as a snapshot does: only what needs no size is a fault."""

from __future__ import annotations

from pathlib import Path

from autodl_ray.data.cleaning.boxes import find_box_faults
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.facts.reading import PictureFacts
from autodl_ray.data.records import Box, Listing, Record


def test_without_a_size_nothing_lies_outside() -> None:
    boxes = (Box("cat", 1, 2, 30, 40), Box("cat", 5, 5, 5, 5), Box("dog", 9, 9, 3, 3))
    listing = Listing(Path("x"), "voc", [Record("a.png", None, boxes)])
    facts = [PictureFacts("0" * 64, 0, 0, 10)]
    found = find_box_faults(Subject(listing, facts, {"a.png": "train"}))
    assert [(fault.kind, fault.box) for fault in found] == [("box_empty", 1), ("box_inverted", 2)]
