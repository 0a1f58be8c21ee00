"""Small JPEG copies of pictures as data URIs, within a total size."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

from autodl_ray.artifacts import Samples
from autodl_ray.images import ImageArray, decode_image

__all__ = ["data_uri", "thumbnails"]

_TOTAL_CHARS = 2_000_000


def thumbnails(samples: Samples, positions: Sequence[int], *, total_chars: int = _TOTAL_CHARS) -> list[str]:
    """Return data URIs of the pictures at ``positions``, in order, as many as fit into ``total_chars``."""
    side = 256 if len(positions) <= 48 else 144
    made: list[str] = []
    for position in positions:
        made.append(data_uri(decode_image(samples.read(position)), side=side))
        if sum(map(len, made)) > total_chars:
            return made[:-1]
    return made


def data_uri(image: ImageArray, *, side: int) -> str:
    """Return (H, W, 3) uint8 as a JPEG data URI whose longer side is at most ``side`` px; never enlarged."""
    picture = Image.fromarray(image)
    is_tiny = max(picture.size) <= 64
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if is_tiny:  # a few hundred bytes, and chroma subsampling would smear them
        picture.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        picture.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
