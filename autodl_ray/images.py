"""The one way from the bytes of a picture to pixels, for training, evaluation and serving alike.

Decoding is shared by every stage, so that a served answer cannot differ from the evaluated one because of
another decoder, a camera's EXIF turn or a transparent background.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from autodl_ray.errors import DatasetError

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "Fit", "ImageArray", "Preprocess", "decode_image"]

ImageArray = npt.NDArray[np.uint8]
Fit = Literal["stretch", "crop", "pad"]

MAX_PIXELS = 100_000_000
"""Pictures with more pixels are refused before they are decoded (a decompression bomb)."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class Preprocess:
    """How a decoded picture becomes the input of a network; it travels inside the exported graph.

    The rule is: scale with bilinear interpolation and antialiasing (half-pixel centres) to ``size`` × ``size``
    by ``fit``, divide by 255, subtract ``mean``, divide by ``std``.

    Attributes:
        size: Side of the square network input, in pixels.
        fit: ``stretch`` ignores the aspect ratio, ``crop`` scales the shorter side and cuts the centre,
            ``pad`` scales the longer side and fills with grey (the mean).
        mean: Mean a channel, of values in [0, 1].
        std: Standard deviation a channel, of values in [0, 1].
    """

    size: int
    fit: Fit = "stretch"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Decode a picture to RGB, upright, 8 bits a channel.

    EXIF orientation is applied, transparency is laid on white, CMYK, grey and palette pictures become RGB,
    16-bit pictures keep their upper 8 bits, and of an animation the first frame is taken.

    Args:
        data: The bytes of a JPEG, PNG, WebP, BMP, GIF, TIFF or PNM file.
        max_pixels: Largest accepted width × height, checked before decoding.

    Returns:
        (H, W, 3) uint8 in RGB order.

    Raises:
        DatasetError: The bytes are empty, truncated, too large or not a picture.
    """
    if not data:
        raise DatasetError("The picture is empty (0 bytes).", hint="remove the file or save it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as picture:
                _check_pixels(picture, max_pixels)
                return _to_rgb(picture)
    except DatasetError:
        raise
    except UnidentifiedImageError as error:
        raise DatasetError(
            "This is not a picture.",
            seen=f"{len(data)} bytes starting with {data[:8]!r}",
            accepted="JPEG, PNG, WebP, BMP, GIF, TIFF or PNM",
        ) from error
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error … for broken files
        raise DatasetError("The picture is truncated or damaged.", seen=str(error)) from error


def _check_pixels(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise DatasetError(
            "The picture is too large.", seen=f"{width} x {height}", accepted=f"at most {max_pixels:,} pixels"
        )


def _to_rgb(picture: Image.Image) -> ImageArray:
    picture.load()
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = _to_8_bits(upright)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        upright = Image.alpha_composite(paper, layer)
    return np.ascontiguousarray(np.asarray(upright.convert("RGB"), dtype=np.uint8))


def _to_8_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture, dtype=np.float64)
    if picture.mode.startswith("I;16") or values.max(initial=0) > 255:
        values = values / 257.0
    elif picture.mode == "F" and values.max(initial=0) <= 1.0:
        values = values * 255.0
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8), mode=None)
