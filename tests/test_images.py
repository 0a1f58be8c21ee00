"""The one decoder, over every kind of picture that people have in their folders."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodl_ray.errors import DatasetError
from autodl_ray.images import Fit, ImageArray, check_image, decode_image, fit_geometry, fit_image, image_size


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def colour(width: int = 12, height: int = 8, value: tuple[int, int, int] = (200, 100, 50)) -> Image.Image:
    return Image.new("RGB", (width, height), value)


def test_rgb_png_comes_back_as_it_was() -> None:
    pixels = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
    assert np.array_equal(decode_image(saved(Image.fromarray(pixels), "PNG")), pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_every_format(kind: str) -> None:
    data = saved(colour(), kind)
    image = decode_image(data)
    assert (image.shape, image.dtype) == ((8, 12, 3), np.uint8)
    assert np.abs(image.astype(int) - [200, 100, 50]).max() <= 6
    assert check_image(data) == image_size(data) == (12, 8)


def test_grey_16_bit_is_scaled_however_dark() -> None:
    values = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode_image(saved(Image.fromarray(values), kind))[0, :, 0].tolist() == [0, 1, 100, 255]
    dark = np.full((2, 2), 200, dtype=np.uint16)
    assert decode_image(saved(Image.fromarray(dark), "PNG")).max() == 1


def test_pnm_with_16_bits() -> None:
    data = b"P5 2 1 65535\n" + np.array([200, 65535], dtype=">u2").tobytes()
    assert decode_image(data)[0, :, 0].tolist() == [1, 255]


def test_float_tiff() -> None:
    values = np.array([[0.0, 0.5, 1.0, np.nan]], dtype=np.float32)
    assert decode_image(saved(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255, 0]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    clear = Image.new(mode, (4, 4), 0)
    assert decode_image(saved(clear, "PNG")).min() == 255


def test_palette_with_transparency() -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    assert decode_image(saved(picture, "PNG"))[0, 0].tolist() == [255, 0, 0]
    assert decode_image(saved(picture, "PNG", transparency=1))[0, 0].tolist() == [255, 255, 255]
    assert decode_image(saved(picture, "PNG", transparency=bytes([255, 0])))[0, 0].tolist() == [255, 255, 255]


def test_cmyk_jpeg() -> None:
    data = saved(colour().convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode_image(data).astype(int) - [200, 100, 50]).max() <= 4
    assert check_image(data) == (12, 8)


def test_first_frame_of_an_animation() -> None:
    frames = [colour(value=(255, 0, 0)), colour(value=(0, 0, 255))]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=10)
    assert decode_image(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_turns_the_picture(turn: int, kind: str) -> None:
    from PIL import ImageOps

    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = turn
    data = saved(Image.fromarray(pixels), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    image = decode_image(data)
    assert np.array_equal(image, np.asarray(expected))
    assert check_image(data) == (image.shape[1], image.shape[0])


def test_broken_exif_is_no_reason_to_lose_a_picture() -> None:
    data = saved(colour(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff broken")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert decode_image(data).shape == (8, 12, 3)
    assert not caught


@pytest.mark.parametrize("read", [decode_image, check_image])
def test_broken_files_are_named_for_what_they_are(read: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    with pytest.raises(DatasetError, match="empty"):
        read(b"")
    with pytest.raises(DatasetError, match="not a picture"):
        read(b"hello, this is text")
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "BMP"):
        data = saved(Image.fromarray(noise), kind)
        with pytest.raises(DatasetError, match=r"truncated or damaged|not a picture"):
            read(data[: len(data) // 2])


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(DatasetError, match="too large"):
        decode_image(saved(colour(100, 100), "PNG"), max_pixels=9_999)


def test_at_least_keeps_both_sides() -> None:
    data = saved(colour(640, 480), "JPEG")
    assert decode_image(data, at_least=224).shape == (240, 320, 3)
    assert decode_image(data, at_least=300).shape == (480, 640, 3)
    assert decode_image(saved(colour(640, 480), "PNG"), at_least=8).shape == (480, 640, 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("turn", [None, 1, 6])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_fast_decoder_sees_the_same(mode: str, turn: int | None, progressive: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn or 1
    smooth = Image.linear_gradient("L").resize((48, 32))
    picture = Image.merge("RGB", [smooth, smooth.rotate(180), colour(48, 32).getchannel(0)]).convert(mode)
    data = saved(picture, "JPEG", quality=90, progressive=progressive, **({} if turn is None else {"exif": exif}))
    assert (b"Exif" in data) is (turn is not None)
    fast, slow = decode_image(data, at_least=48), decode_image(data)
    assert fast.shape == slow.shape
    assert np.abs(fast.astype(int) - slow).max() <= 1
    with pytest.raises(DatasetError, match="truncated"):
        decode_image(data[: len(data) // 2], at_least=48)
    with pytest.raises(DatasetError, match="too large"):
        decode_image(data, at_least=48, max_pixels=48 * 32 - 1)


def test_fit_rules() -> None:
    image: ImageArray = np.full((10, 20, 3), 200, dtype=np.uint8)
    image[:, :5] = 0
    assert fit_image(image, size=10, fit="stretch").shape == (10, 10, 3)
    assert fit_image(image, size=10, fit="crop").min() == 200
    padded = fit_image(image, size=20, fit="pad", fill=(1, 2, 3))
    assert padded[0, 0].tolist() == [1, 2, 3]
    assert np.array_equal(padded[5:15], image)
    assert fit_geometry(10, 20, size=10, fit="crop") == (10, 20, 0, 5)
    assert fit_geometry(10, 20, size=10, fit="pad") == (5, 10, -2, 0)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_every_fit_makes_a_square_of_every_shape(fit: Fit) -> None:
    for height in range(1, 40):
        for width in range(1, 40):
            image: ImageArray = np.full((height, width, 3), 200, dtype=np.uint8)
            square = fit_image(image, size=24, fit=fit, fill=(1, 2, 3))
            assert square.shape == (24, 24, 3), (height, width)  # 15 x 16 scales to 23 x 24: one row of margin
            where = fit_geometry(height, width, size=24, fit=fit)
            margin = 24 * 24 - min(24, where.height) * min(24, where.width)
            assert (square == (1, 2, 3)).all(axis=2).sum() == margin
