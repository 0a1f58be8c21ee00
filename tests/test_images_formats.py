"""Decoding, pixel by pixel: modes and depths of every format, truncation at several places, bombs."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodl_ray.errors import DatasetError
from autodl_ray.images import IMAGE_SUFFIXES, decode_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(height: int = 24, width: int = 40) -> np.ndarray[Any, np.dtype[np.uint8]]:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 6, y * 10, np.full_like(x, 90)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_kinds_come_back_exactly(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode_image(encoded(Image.fromarray(gradient()), kind, **options))
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.array_equal(image, gradient())


def test_jpeg_comes_back_nearly() -> None:
    image = decode_image(encoded(Image.fromarray(gradient()), "JPEG", quality=95))
    assert image.shape == (24, 40, 3)
    assert np.abs(image.astype(int) - gradient()).mean() < 4


def test_grey_becomes_rgb() -> None:
    image = decode_image(encoded(Image.fromarray(gradient()[..., 0])))
    assert np.array_equal(image, np.repeat(gradient()[..., :1], 3, axis=-1))


def test_one_bit_becomes_black_and_white() -> None:
    bits = Image.fromarray((gradient()[..., 0] > 100).astype(np.uint8) * 255).convert("1", dither=Image.Dither.NONE)
    image = decode_image(encoded(bits))
    assert set(np.unique(image)) == {0, 255}


def test_transparency_is_laid_on_white() -> None:
    picture = Image.new("RGBA", (4, 2), (255, 0, 0, 255))
    picture.putpixel((0, 0), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 128))
    image = decode_image(encoded(picture))
    assert tuple(image[0, 0]) == WHITE
    assert image[0, 1].tolist() == pytest.approx([127] * 3, abs=1)
    assert tuple(image[1, 3]) == RED


def test_grey_with_transparency_is_laid_on_white() -> None:
    picture = Image.new("LA", (2, 1), (10, 255))
    picture.putpixel((0, 0), (10, 0))
    assert decode_image(encoded(picture)).tolist() == [[[255] * 3, [10] * 3]]


def test_palette_with_a_transparent_entry_is_laid_on_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, *BLUE])
    picture.putpixel((1, 0), 1)
    image = decode_image(encoded(picture, transparency=0))
    assert [tuple(p) for p in image[0]] == [WHITE, BLUE]


def test_palette_without_transparency() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, *BLUE])
    picture.putpixel((1, 0), 1)
    assert [tuple(p) for p in decode_image(encoded(picture))[0]] == [RED, BLUE]


def test_one_colour_that_is_transparent_in_rgb() -> None:
    picture = Image.new("RGB", (2, 1), RED)
    picture.putpixel((1, 0), GREEN)
    image = decode_image(encoded(picture, transparency=RED))
    assert [tuple(p) for p in image[0]] == [WHITE, GREEN]


def test_cmyk_becomes_rgb() -> None:
    colours = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        image = decode_image(encoded(colours, kind))
        assert image.shape == (16, 16, 3)
        assert image[8, 8].tolist() == pytest.approx([255, 0, 0], abs=6), kind


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_upper_eight(kind: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    image = decode_image(encoded(Image.fromarray(values), kind))
    assert image[0, :, 0].tolist() == [0, 1, 128, 255]
    assert image.shape == (1, 4, 3)


def test_dark_sixteen_bits_stay_dark() -> None:
    image = decode_image(encoded(Image.fromarray(np.full((2, 2), 200, dtype=np.uint16))))
    assert image.max() <= 1


def test_sixteen_bit_colour_png() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\x00" + struct.pack(">3H", 65535, 32896, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )
    assert decode_image(data)[0, 0].tolist() == [255, 128, 0]


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    for kind in ("GIF", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert tuple(decode_image(data)[4, 4]) == RED, kind


def test_empty_bytes() -> None:
    with pytest.raises(DatasetError, match=r"empty \(0 bytes\)") as caught:
        decode_image(b"")
    assert caught.value.hint is not None


@pytest.mark.parametrize("data", [b"hello, I am a text file named a.jpg\n", b"<svg></svg>", b"\x00" * 100])
def test_not_a_picture(data: bytes) -> None:
    with pytest.raises(DatasetError, match="This is not a picture") as caught:
        decode_image(data)
    assert f"{len(data)} bytes" in str(caught.value)
    assert "JPEG" in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(DatasetError, match=r"truncated or damaged|not a picture"):
        decode_image(data[: int(len(data) * share)])


def bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\x00" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_001, 12_000, 100_000])  # ours, ours beside Pillow's warning, Pillow's own error
def test_a_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    with pytest.raises(DatasetError, match="The picture is too large") as caught:
        decode_image(bomb(side))
    assert f"{side} x {side}" in str(caught.value) or f"{side**2} pixels" in str(caught.value)
    assert "100,000,000 pixels" in str(caught.value)


def test_the_limit_can_be_set() -> None:
    data = encoded(Image.new("RGB", (11, 10)))
    assert decode_image(data, max_pixels=110).shape == (10, 11, 3)
    with pytest.raises(DatasetError, match="too large"):
        decode_image(data, max_pixels=109)


def test_suffixes_are_lower_case_with_their_dot() -> None:
    assert all(s == s.lower() and s.startswith(".") for s in IMAGE_SUFFIXES)


def test_formats_beyond_those_named_are_not_even_tried() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(DatasetError, match="This is not a picture"):
        decode_image(eps)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "SGI")
    with pytest.raises(DatasetError, match="This is not a picture"):
        decode_image(buffer.getvalue())
