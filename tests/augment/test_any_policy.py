"""Any policy that can be written, of any operations: what holds for its pictures, masks and boxes."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autodl_ray.augment import CATALOGUE, AugmentPolicy, Scene
from autodl_ray.augment.ready import READY
from autodl_ray.images import Fit

Document = dict[str, Any]

SLOW = ("PiecewiseAffine", "RingingOvershoot", "Superpixels")
"""Tens of milliseconds each: they have tests of their own."""

_shares = st.sampled_from([0.0, 0.3, 0.5, 1.0])
_operations = st.sampled_from(sorted(set(CATALOGUE) - set(SLOW)))


@st.composite
def steps(draw: st.DrawFn, depth: int = 0) -> Document:
    """One step of a policy, nested at most three deep."""
    kinds = ["transform", "transform", "policy", "one_of", "some_of", "policies"]
    kind = draw(st.sampled_from(kinds[:3] if depth == 3 else kinds))
    probability = {"probability": draw(_shares)}
    if kind == "transform":
        return {"transform": {"name": draw(_operations)}, **probability}
    if kind == "policy":
        return {"policy": draw(st.sampled_from(sorted(READY))), **probability}
    inner = draw(st.lists(steps(depth + 1), min_size=1, max_size=3))
    if kind == "one_of":
        weights = [draw(st.sampled_from([0.5, 1, 3])) for _ in inner]
        return {"one_of": [{**s, "weight": w} for s, w in zip(inner, weights, strict=True)], **probability}
    if kind == "some_of":
        high = draw(st.integers(0, len(inner)))
        body = {"n": [draw(st.integers(0, high)), high], "steps": inner, "replace": draw(st.booleans())}
        return {"some_of": body, **probability}
    return {"policies": inner, **probability}


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """A picture of 1 to 70 px a side with a mask and some boxes."""
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    count = draw(st.integers(0, 4))
    corners = rng.uniform(0, 1, (count, 2, 2)) * (width, height)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = rng.integers(0, 5, (height, width), dtype=np.uint8)
    return Scene(image, mask, boxes, np.arange(count, dtype=np.int64) * 10)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(steps(), max_size=3), scenes(), st.sampled_from(["stretch", "crop", "pad"]), st.integers(0, 2**32 - 1))
def test_what_always_holds(rows: list[Document], scene: Scene, fit: Fit, seed: int) -> None:
    policy = AugmentPolicy.from_document({"policies": rows})
    assert AugmentPolicy.from_document(policy.to_document()) == policy == pickle.loads(pickle.dumps(policy))
    done = policy.apply_scene(scene, size=24, fit=fit, rng_seed=seed)
    assert np.array_equal(done.image, policy.apply(scene.image, size=24, fit=fit, rng_seed=seed))
    assert (done.image.shape, done.image.dtype) == ((24, 24, 3), np.uint8)
    assert done.image.flags.c_contiguous
    assert done.mask is not None
    assert (done.mask.shape, done.mask.dtype) == ((24, 24), np.uint8)
    assert set(np.unique(done.mask)) <= {0, 1, 2, 3, 4, 255}
    assert done.boxes is not None
    assert done.labels is not None
    assert done.boxes.shape == (len(done.labels), 4)
    assert (done.boxes >= 0).all()
    assert (done.boxes <= 24).all()
    assert (done.boxes[:, :2] <= done.boxes[:, 2:]).all()
    assert set(done.labels) <= set(scene.labels if scene.labels is not None else ())
    assert len(set(done.labels)) == len(done.labels)
    again = policy.apply_scene(scene, size=24, fit=fit, rng_seed=seed)
    assert np.array_equal(again.image, done.image)
    assert np.array_equal(again.boxes, done.boxes)  # type: ignore[arg-type]
