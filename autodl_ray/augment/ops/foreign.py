"""The one door to albumentations: loaded when first used, seeded by us, never kept."""

from __future__ import annotations

import copy
import os
from functools import lru_cache
from typing import Any

import numpy as np

from autodl_ray.images import ImageArray

__all__ = ["through_albumentations"]


def through_albumentations(name: str, image: ImageArray, *, seed: float, **params: Any) -> ImageArray:
    """Do an albumentations transform that leaves positions as they are.

    Each picture gets a copy of the transform with a random state of its own, so that threads do not meet in it, and
    nothing of it is in a policy or a pickle.

    Args:
        name: Of its class.
        image: (H, W, 3) uint8; not changed.
        seed: Decides everything random in it.
        params: Of the transform.
    """
    transform = copy.copy(_made(name, tuple(params.items())))
    transform.set_random_seed(int(seed))
    return np.asarray(transform(image=image.copy())["image"], dtype=np.uint8)


@lru_cache(maxsize=128)
def _made(name: str, params: tuple[tuple[str, Any], ...]) -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for a newer version
    import albumentations

    return getattr(albumentations, name)(p=1.0, **dict(params))
