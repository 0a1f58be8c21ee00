"""Every operation at the edges of its parameters' ranges, on odd sizes: nothing fails, no box leaves the picture."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from autodl_ray.augment import CATALOGUE
from autodl_ray.augment.op import Op, Target
from autodl_ray.augment.scene import Scene, apply_op

TARGET = Target(16, fill=(9, 8, 7))
SIZES = ((1, 1), (1, 50), (50, 1), (9, 13), (33, 47))
TRIES = 12


def edge(schema: dict[str, Any], rng: random.Random) -> Any:
    """Return a value that a JSON schema allows, mostly at an edge of its range."""
    if "anyOf" in schema:
        return edge(rng.choice(schema["anyOf"]), rng)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema["type"]
    if kind == "array":
        parts = schema.get("prefixItems") or [schema["items"]] * rng.randint(1, 3)
        values = [edge(part, rng) for part in parts]
        return sorted(values)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + (1e-3 if kind == "number" else 1))
    high = schema.get("maximum", schema.get("exclusiveMaximum", 1) - (1e-3 if kind == "number" else 1))
    middle = rng.randint(low, high) if kind == "integer" else rng.uniform(low, high)
    return rng.choice([low, high, middle])


def extreme(name: str, rng: random.Random) -> Op:
    kind = CATALOGUE[name]
    properties = kind.model_json_schema()["properties"] if kind.model_fields else {}
    params = {key: edge(schema, rng) for key, schema in properties.items() if rng.random() < 0.8}
    return kind(**params)


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_at_the_edges_of_its_ranges(name: str) -> None:
    rng, chance = random.Random(name), np.random.default_rng(1)
    for height, width in SIZES:
        image = chance.integers(0, 256, (height, width, 3), dtype=np.uint8)
        before = image.copy()
        boxes = np.array([[0, 0, width, height]], dtype=np.float32)
        for _ in range(TRIES):
            op = extreme(name, rng)
            drawn = op.draw(rng, height, width)
            moved = apply_op(op, Scene(image, image[:, :, 0].copy(), boxes, np.array([1])), drawn, TARGET)
            assert moved.image.dtype == np.uint8, op
            assert moved.image.ndim == 3, op
            assert moved.image.size > 0, op
            assert moved.mask is not None
            assert moved.mask.shape == moved.image.shape[:2], op
            assert moved.boxes is not None
            assert np.isfinite(moved.boxes).all(), op
            assert (moved.boxes <= [moved.image.shape[1], moved.image.shape[0]] * 2).all(), op
            assert np.array_equal(image, before), op


@pytest.mark.parametrize("name", [name for name, kind in CATALOGUE.items() if kind.model_fields])
def test_just_outside_is_refused(name: str) -> None:
    """Every number has a lower and an upper bound that hold."""
    kind = CATALOGUE[name]
    for key, schema in kind.model_json_schema()["properties"].items():
        for bound, beyond in (("minimum", -1), ("maximum", 1), ("exclusiveMinimum", 0), ("exclusiveMaximum", 0)):
            part = schema["prefixItems"][0] if "prefixItems" in schema else schema
            if bound in part:
                value = part[bound] + beyond
                with pytest.raises(ValidationError):
                    kind(**{key: [value, value] if "prefixItems" in schema else value})
        if "prefixItems" in schema:
            bounds = schema["prefixItems"][0]
            assert {"minimum", "exclusiveMinimum"} & set(bounds), key
            assert {"maximum", "exclusiveMaximum"} & set(bounds), key


@pytest.mark.parametrize("name", [name for name, kind in CATALOGUE.items() if kind.model_fields])
def test_the_description_says_the_range(name: str) -> None:
    for key, schema in CATALOGUE[name].model_json_schema()["properties"].items():
        part = schema["prefixItems"][0] if "prefixItems" in schema else schema
        numbers = re.findall(r"-?[0-9.]*[0-9]", schema["description"])
        for bound in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            assert bound not in part or f"{part[bound]:g}" in numbers, (key, schema["description"])
        for choice in part.get("enum", ()):
            assert str(choice) in schema["description"], key
