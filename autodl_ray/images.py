"""The one way from the bytes of a picture to pixels, for training, evaluation and serving alike.

Decoding is shared by every stage, so that a served answer cannot differ from the evaluated one because of
another decoder, a camera's EXIF turn or a transparent background.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from autodl_ray.errors import DatasetError

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Fit",
    "Geometry",
    "ImageArray",
    "Preprocess",
    "check_image",
    "decode_image",
    "fit_geometry",
    "fit_image",
    "image_size",
    "without_far_ends",
]

T = TypeVar("T")
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


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None) -> ImageArray:
    """Decode a picture to RGB, upright, 8 bits a channel.

    EXIF orientation is applied, transparency is laid on white, CMYK, grey and palette pictures become RGB,
    16-bit pictures are scaled to 8 bits, and of an animation the first frame is taken.

    Args:
        data: The bytes of a JPEG, PNG, WebP, BMP, GIF, TIFF or PNM file.
        max_pixels: Largest accepted width × height, checked before decoding.
        at_least: For training only, where speed counts more than the last bit: a large JPEG may be decoded at a
            half, a quarter or an eighth of its size, several times faster, as long as both sides keep this many
            pixels, and by another decoder. None decodes the picture as it is.

    Returns:
        (H, W, 3) uint8 in RGB order.

    Raises:
        DatasetError: The bytes are empty, truncated, too large or not a picture.
    """
    if at_least is not None and data[:2] == b"\xff\xd8":
        plain = _decode_plain_jpeg(data, max_pixels, at_least)
        if plain is not None:
            return plain
    with _opened(data, max_pixels) as picture:
        if at_least is not None:
            whole = picture.size
            picture.draft(None, (at_least, at_least))  # of the JPEG decoder; does nothing for other formats
            fast = _decode_jpeg(data, picture) if picture.size == whole else None
            if fast is not None:
                return fast
        return _guarded(_to_rgb, picture)


def _decode_jpeg(data: bytes, picture: Image.Image) -> ImageArray | None:
    """Decode an upright, whole JPEG with OpenCV: the same pixels in 0.6 of Pillow's time (256 × 192)."""
    plain = picture.format == "JPEG" and picture.mode in ("RGB", "L") and _orientation(picture) == 1
    if not plain or b"\xff\xd9" not in data[-64:]:  # OpenCV fills what a truncated file lacks, and says nothing
        return None
    return _decode_cv2(data)


_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_JPEG_MARKERS = frozenset({0xC4, 0xDB, 0xDD, 0xE0, 0xFE})


def _decode_plain_jpeg(data: bytes, max_pixels: int, at_least: int) -> ImageArray | None:
    """Decode a JPEG whose header says that it is grey or YCbCr, upright and to be decoded at its own size.

    None where it is not, or may not be: Pillow then looks. Reading the header here takes a third of Pillow's time,
    and a small photo's header costs Pillow an eighth of its pixels.
    """
    at = 2
    while at + 10 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _JPEG_FRAMES:
            height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
            usual = data[at + 4] == 8 and data[at + 9] in (1, 3) and 0 < width * height <= max_pixels
            smaller = min(width, height) >= 2 * at_least
            whole = b"\xff\xd9" in data[-64:]
            return _decode_cv2(data) if usual and whole and not smaller else None
        if marker not in _JPEG_MARKERS:  # such as EXIF, which may turn the picture, or Adobe's, another colour space
            return None
        at += 2 + length
    return None


def _decode_cv2(data: bytes) -> ImageArray | None:
    import cv2

    return cast(
        "ImageArray | None",
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION),
    )


def check_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read a whole picture to see that it is one, as fast as its format allows.

    A JPEG is decoded at an eighth of its size: every byte is read, so that a truncated file is found, but few
    pixels are made.

    Returns:
        (width, height) of the upright picture, in pixels.

    Raises:
        DatasetError: As :func:`decode_image`.
    """
    with _opened(data, max_pixels) as picture:
        width, height = picture.size
        if picture.format == "JPEG" and picture.mode in ("RGB", "L", "CMYK"):
            picture.draft(None, (1, 1))
            _guarded(_load, picture)
        else:
            _guarded(_to_rgb, picture)
        return _upright(width, height, picture)


def image_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) of the upright picture from its header alone.

    Raises:
        DatasetError: The bytes are empty or not a picture.
    """
    with _opened(data, None) as picture:
        return _upright(*picture.size, picture)


class Geometry(NamedTuple):
    """How a picture is scaled, and where the square input lies in the scaled picture (pixels).

    ``top`` and ``left`` are positive for a cut (``crop``) and negative for a margin (``pad``).
    """

    height: int
    width: int
    top: int
    left: int


def fit_geometry(height: int, width: int, *, size: int, fit: Fit) -> Geometry:
    """Return the scaled size and the offsets of the fit rule, all in whole pixels.

    The side that is not fixed is ``(side · S + m // 2) // m`` with m the fixed side's length, at least 1.
    """
    if fit == "stretch":
        return Geometry(size, size, 0, 0)
    fixed = min(height, width) if fit == "crop" else max(height, width)
    new_h, new_w = (max(1, (side * size + fixed // 2) // fixed) for side in (height, width))
    return Geometry(new_h, new_w, _half(new_h - size), _half(new_w - size))


def _half(surplus: int) -> int:
    return surplus // 2 if surplus >= 0 else -(-surplus // 2)


def fit_image(image: ImageArray, *, size: int, fit: Fit, fill: tuple[int, int, int] = (128, 128, 128)) -> ImageArray:
    """Scale and place a picture in 8 bits by the fit rule, bilinear with antialiasing.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: S, side of the result in pixels.
        fit: ``stretch``, ``crop`` or ``pad``, see :class:`Preprocess`.
        fill: Colour of the margin of ``pad``.

    Returns:
        (S, S, 3) uint8; the picture itself where nothing is to be done.
    """
    where = fit_geometry(image.shape[0], image.shape[1], size=size, fit=fit)
    scaled = image
    if image.shape[:2] != (where.height, where.width):
        picture = Image.fromarray(image).resize((where.width, where.height), Image.Resampling.BILINEAR)
        scaled = np.asarray(picture)
    if where.height >= size and where.width >= size:
        return scaled[where.top : where.top + size, where.left : where.left + size]
    square = np.empty((size, size, 3), dtype=np.uint8)
    square[:] = fill
    square[-where.top : -where.top + where.height, -where.left : -where.left + where.width] = scaled
    return square


def without_far_ends(image: ImageArray) -> ImageArray:
    """Cut what ``crop`` never looks at: scaling the shorter side of a 1 x 5,000,000 px picture would take terabytes.

    Args:
        image: (H, W, 3) uint8.

    Returns:
        The picture, or of one that is more than 16 times as long as wide its middle.
    """
    for axis in (0, 1):
        keep = _MAX_RATIO * min(image.shape[:2])
        surplus = image.shape[axis] - keep
        if surplus > 1:
            start = surplus // 2  # as much at either end, so that the centre stays where it is
            image = np.take(image, np.arange(start, image.shape[axis] - start), axis=axis)
    return image


_MAX_RATIO = 16
_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


# Nothing else is tried: Pillow would start Ghostscript for an EPS, and knows forty more formats, each with a parser.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


def _quiet_pillow() -> None:
    # Pillow warns about broken EXIF, odd palettes and large pictures. `warnings.catch_warnings` swaps the filters of
    # the whole process and so may not be used by the threads that decode: one filter is added, and stays.
    if _PILLOW not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _opened(data: bytes, max_pixels: int | None) -> Image.Image:
    if not data:
        raise DatasetError("The picture is empty (0 bytes).", hint="remove the file or save it again")
    _quiet_pillow()
    try:
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise DatasetError(
            "This is not a picture.",
            seen=f"{len(data)} bytes starting with {data[:8]!r}",
            accepted="JPEG, PNG, WebP, BMP, GIF, TIFF or PNM",
        ) from error
    except Image.DecompressionBombError as error:
        raise DatasetError(
            "The picture is too large.", seen=str(error), accepted=f"at most {max_pixels or MAX_PIXELS:,} pixels"
        ) from error
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error … for broken headers
        raise _damaged(error) from error
    width, height = picture.size
    if max_pixels is not None and width * height > max_pixels:
        raise DatasetError(
            "The picture is too large.", seen=f"{width} x {height}", accepted=f"at most {max_pixels:,} pixels"
        )
    return picture


def _guarded(step: Callable[[Image.Image], T], picture: Image.Image) -> T:
    try:
        return step(picture)
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error … for broken files
        raise _damaged(error) from error


def _load(picture: Image.Image) -> None:
    picture.load()


def _damaged(error: Exception) -> DatasetError:
    return DatasetError("The picture is truncated or damaged.", seen=str(error))


def _upright(width: int, height: int, picture: Image.Image) -> tuple[int, int]:
    return (height, width) if _orientation(picture) >= 5 else (width, height)


def _orientation(picture: Image.Image) -> int:
    if not ({"exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"} & picture.info.keys()) and (
        picture.format != "TIFF"
    ):
        return 1
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a picture with a broken EXIF block is still a picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _to_rgb(picture: Image.Image) -> ImageArray:
    kind = picture.format
    picture.load()  # before the turn is looked up: a PNG may keep its EXIF block behind the pixels
    turn = _TURNS.get(_orientation(picture))
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _to_8_bits(picture, kind)
    if picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    if turn is not None:
        picture = picture.transpose(turn)
    return np.array(picture, dtype=np.uint8)


def _to_8_bits(picture: Image.Image, kind: str | None) -> Image.Image:
    values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
    # Pillow reads deep PNG and PNM as I or I;16 with the full range 0 … 65535, however dark the picture is.
    if picture.mode.startswith("I;16") or kind in ("PNG", "PPM") or values.max(initial=0) > 255:
        values = values / 257.0
    elif picture.mode == "F" and values.max(initial=0) <= 1.0:
        values = values * 255.0
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
