"""How fast augmentations are: pictures a second of one thread."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np

from autodl_ray.augment.catalogue import CATALOGUE
from autodl_ray.augment.nodes import Step, run_nodes
from autodl_ray.augment.op import Target
from autodl_ray.augment.policy import AugmentPolicy
from autodl_ray.augment.scene import Scene
from autodl_ray.images import ImageArray
from autodl_ray.seeding import rng_for

__all__ = ["Speed", "example_picture", "operation_speeds", "policy_speed"]


@dataclass(frozen=True)
class Speed:
    """What was measured.

    Attributes:
        name: Of the operation or policy.
        images_per_s: Pictures a second.
        rival_images_per_s: Of albumentations' transform of the same name with its defaults; None: not asked for, or
            there is none.
    """

    name: str
    images_per_s: float
    rival_images_per_s: float | None = None


def example_picture(height: int = 256, width: int = 256) -> ImageArray:
    """Return soft colours with a little noise, as photos have: (H, W, 3) uint8, always the same."""
    rng = rng_for(0, "example picture")
    soft = cv2.resize(rng.uniform(0, 255, (6, 6, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(soft + rng.normal(0, 6, soft.shape), 0, 255), dtype=np.uint8)


def operation_speeds(
    image: ImageArray, *, size: int, seconds: float, names: tuple[str, ...] = (), rival: bool = False
) -> Iterator[Speed]:
    """Time operations with their default parameters, one after the other, each without the final fit.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the network's input in pixels, for operations that make a picture square.
        seconds: For each.
        names: Which; none: the whole catalogue.
        rival: Whether to time albumentations too, where it has a transform of the same name.
    """
    for name in names or tuple(CATALOGUE):
        policy = AugmentPolicy(name, (Step(CATALOGUE[name].model_validate({})),))
        other = _albumentations(name, size) if rival else None
        with _one_thread():
            own = _rate(_unfitted(policy, image, size), seconds)
            theirs = None if other is None else _rate(partial(_call, other, image), seconds)
        yield Speed(name, own, theirs)


def policy_speed(policy: AugmentPolicy, image: ImageArray, *, size: int, seconds: float) -> Speed:
    """Time a whole policy, with the final fit (stretch)."""
    with _one_thread():
        rate = _rate(lambda seed: policy.apply(image, size=size, fit="stretch", rng_seed=seed), seconds)
    return Speed(policy.name, rate)


def _unfitted(policy: AugmentPolicy, image: ImageArray, size: int) -> Callable[[int], object]:
    target = Target(size)
    return lambda seed: run_nodes(policy.steps, Scene(image), rng=random.Random(seed), target=target)


def _call(transform: Callable[..., Any], image: ImageArray, _: int) -> object:
    return transform(image=image)


def _rate(run: Callable[[int], object], seconds: float) -> float:
    run(0)
    done, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds or done == 0:
        done += 1
        run(done)
    return done / spent


@contextmanager
def _one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _albumentations(name: str, size: int) -> Callable[..., Any] | None:
    """Return albumentations' transform of that name, always applied; None where it has none."""
    import os
    import warnings

    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for its version at import
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import albumentations

        kind = getattr(albumentations, name, None)
        if kind is None:
            return None
        for options in ({"p": 1.0}, {"p": 1.0, "size": (size, size)}, {"p": 1.0, "height": size, "width": size}):
            try:
                made: Callable[..., Any] = kind(**options)
            except (TypeError, ValueError):
                continue
            return made
    return None
