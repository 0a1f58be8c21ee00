"""The one door to albumentations: loaded when first used, seeded by us, never kept."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from autodl_ray.images import ImageArray

__all__ = ["through_albumentations"]


def through_albumentations(name: str, image: ImageArray, *, seed: float, **params: Any) -> ImageArray:
    """Do an albumentations transform that leaves positions as they are.

    The transform is made for this one picture, so that nothing of it is in a policy, a pickle or another thread.

    Args:
        name: Of its class.
        image: (H, W, 3) uint8; not changed.
        seed: Decides everything random in it.
        params: Of the transform.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for a newer version
    import albumentations

    transform = getattr(albumentations, name)(p=1.0, **params)
    transform.set_random_seed(int(seed))
    return np.asarray(transform(image=image.copy())["image"], dtype=np.uint8)
