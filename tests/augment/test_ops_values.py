"""What operations do to colours: the same as Pillow's where Pillow has them, and known values."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageEnhance, ImageOps

from autodl_ray.augment.op import Op, Target
from autodl_ray.augment.ops import (
    blur,
    chance,
    colour,
    crops,
    grids,
    light,
    noise,
    patches,
    quality,
    spaces,
    tones,
    weather,
)
from autodl_ray.images import ImageArray

TARGET = Target(16, fill=(1, 2, 3))


def photo(height: int = 48, width: int = 64) -> ImageArray:
    """Return a smooth, colourful picture that uses most values."""
    coarse = np.random.default_rng(5).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def difference(one: npt.ArrayLike, other: npt.ArrayLike) -> int:
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


def enhance(kind: type[ImageEnhance._Enhance], factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: kind(picture).enhance(factor)


@pytest.mark.parametrize(
    ("op", "drawn", "pillow", "tolerance"),
    [
        (tones.Brightness(), (1.3,), enhance(ImageEnhance.Brightness, 1.3), 1),
        (tones.Brightness(), (0.4,), enhance(ImageEnhance.Brightness, 0.4), 1),
        (tones.Contrast(), (1.7,), enhance(ImageEnhance.Contrast, 1.7), 1),
        (tones.Contrast(), (0.2,), enhance(ImageEnhance.Contrast, 0.2), 1),
        (colour.Saturation(), (1.8,), enhance(ImageEnhance.Color, 1.8), 2),
        (colour.Saturation(), (0.0,), enhance(ImageEnhance.Color, 0.0), 1),
        (quality.Sharpness(), (1.9,), enhance(ImageEnhance.Sharpness, 1.9), 1),
        (quality.Sharpness(), (0.1,), enhance(ImageEnhance.Sharpness, 0.1), 1),
        (tones.Posterize(), (3,), lambda picture: ImageOps.posterize(picture, 3), 0),
        (tones.Solarize(), (100,), lambda picture: ImageOps.solarize(picture, 100), 0),
        (tones.Solarize(), (256,), lambda picture: picture, 0),
        (tones.Invert(), (), ImageOps.invert, 0),
        (tones.AutoContrast(), (), ImageOps.autocontrast, 1),
        (tones.Equalize(), (), ImageOps.equalize, 3),
        (colour.Grayscale(), (), lambda picture: picture.convert("L").convert("RGB"), 1),
    ],
)
def test_as_pillow_does_it(
    op: Op, drawn: tuple[float, ...], pillow: Callable[[Image.Image], Image.Image], tolerance: int
) -> None:
    image = photo(240, 320) // 2 + 40
    expected = np.asarray(pillow(Image.fromarray(image)))
    inner = (slice(1, -1), slice(1, -1))  # Pillow leaves the outermost pixels when it sharpens
    assert difference(op.apply(image, drawn, TARGET)[inner], expected[inner]) <= tolerance


@pytest.mark.parametrize(
    ("op", "drawn"),
    [
        (tones.Brightness(), (1.0,)),
        (tones.Contrast(), (1.0,)),
        (colour.Saturation(), (1.0,)),
        (colour.Hue(), (0.0,)),
        (colour.RGBShift(), (0.0, 0.0, 0.0)),
        (colour.ToSepia(), (0.0,)),
        (light.FancyPCA(), (0.0, 0.0, 0.0)),
        (light.ColorTemperature(), (6500.0,)),
        (tones.RandomGamma(), (1.0,)),
        (tones.Posterize(), (8,)),
        (tones.RandomToneCurve(), (1 / 3, 2 / 3)),
        (spaces.Illumination(), (0.0, 1.0)),
        (quality.Sharpness(), (1.0,)),
        (quality.Sharpen(), (0.0,)),
        (quality.UnsharpMask(), (1.0, 0.0)),
        (quality.Emboss(), (0.5, 0.0)),
        (quality.Downscale(), (1.0,)),
        (quality.ChromaticAberration(), (0.0, 0.0)),
        (blur.ZoomBlur(), (1.0,)),
        (noise.SaltAndPepper(), (0.0, 3)),
        (weather.RandomFog(), (0.0, 3, 3)),
        (weather.Spatter(), (0.1, 0.0, 0, 3)),
        (weather.RandomShadow(), (0.0, 0, 0, 1, 0, 1, 1, 0, 1, 0, 0.5)),
    ],
)
def test_a_strength_of_none_changes_nothing(op: Op, drawn: tuple[float, ...]) -> None:
    image = photo()
    assert difference(op.apply(image, drawn, TARGET), image) <= 1


def test_equalize_spreads_and_auto_contrast_stretches() -> None:
    image = photo() // 4 + 100
    for op in (tones.Equalize(), tones.AutoContrast(), tones.AutoContrast(cutoff=0.05)):
        result = op.apply(image, (), TARGET)
        assert result.min(axis=(0, 1)).tolist() == [0, 0, 0]
        assert result.max(axis=(0, 1)).tolist() == [255, 255, 255]
        flat = np.full((5, 7, 3), 77, dtype=np.uint8)
        assert np.array_equal(op.apply(flat, (), TARGET), flat)
    assert np.ptp(np.bincount(tones.Equalize().apply(image, (), TARGET)[:, :, 0].ravel() // 64, minlength=4)) < 200


def test_light_of_another_temperature() -> None:
    grey = np.full((4, 4, 3), 120, dtype=np.uint8)
    warm = light.ColorTemperature().apply(grey, (3500.0,), TARGET)[0, 0].astype(int)
    cold = light.ColorTemperature().apply(grey, (11000.0,), TARGET)[0, 0].astype(int)
    assert warm[0] > warm[1] > warm[2]
    assert cold[0] < cold[1] < cold[2]
    for changed in (warm, cold):
        assert abs(changed @ [0.299, 0.587, 0.114] - 120) < 1.5  # the brightness stays


def test_channels() -> None:
    image = photo()
    assert np.array_equal(colour.ChannelShuffle().apply(image, (2, 0, 1), TARGET), image[:, :, [2, 0, 1]])
    dropped = colour.ChannelDropout().apply(image, (1,), TARGET)
    assert dropped[:, :, 1].max() == 0
    assert np.array_equal(dropped[:, :, [0, 2]], image[:, :, [0, 2]])
    shifted = colour.RGBShift().apply(np.full((2, 2, 3), 100, np.uint8), (5, -7, 200), TARGET)
    assert shifted[0, 0].tolist() == [105, 93, 255]


def test_hue_of_hsv_turns_the_circle() -> None:
    red = np.full((2, 2, 3), (200, 30, 30), dtype=np.uint8)
    green = spaces.HueSaturationValue().apply(red, (1 / 3, 0, 0), TARGET)[0, 0]
    assert green[1] > 190
    assert max(green[0], green[2]) < 45


@pytest.mark.parametrize(
    ("op", "drawn", "mean", "std"),
    [
        (noise.GaussianNoise(), (0.04, 7), 128, 0.04 * 255),
        (noise.UniformNoise(), (0.1, 7), 128, 0.1 * 255 / 3**0.5),
        (noise.SpeckleNoise(), (0.1, 7), 128, 12.8),
        (noise.MultiplicativeNoise(factor=(0.8, 1.2)), (7,), 128, 128 * 0.4 / 12**0.5),
        (noise.ShotNoise(), (0.1, 7), 128, 25.5 * (128 / 255) ** 0.5),
        (noise.ISONoise(), (0.04, 0.03, 7, 8), 128, 0.05 * 255),
    ],
)
def test_noise_has_its_mean_and_deviation(op: Op, drawn: tuple[float, ...], mean: float, std: float) -> None:
    noisy = op.apply(np.full((64, 64, 3), 128, dtype=np.uint8), drawn, TARGET).astype(float)
    assert abs(noisy.mean() - mean) < 0.6
    assert abs(noisy.std() / std - 1) < 0.05
    assert abs(np.corrcoef(noisy[:, :-1, 0].ravel(), noisy[:, 1:, 0].ravel())[0, 1]) < 0.06  # grain, not stripes


def test_salt_and_pepper_are_of_their_share() -> None:
    spoilt = noise.SaltAndPepper(salt=0.25).apply(np.full((200, 200, 3), 128, np.uint8), (0.1, 5), TARGET)
    assert abs((spoilt == 255).all(axis=2).mean() - 0.025) < 0.004
    assert abs((spoilt == 0).all(axis=2).mean() - 0.075) < 0.006


def test_random_numbers_are_what_they_say() -> None:
    def normal(seed: int, *, std: float, mean: float) -> npt.NDArray[np.float32]:
        return np.concatenate([part for _, part in chance.normal_strips(seed, (700, 300, 3), std=std, mean=mean)])

    values = normal(3, std=2.0, mean=1.0)
    assert values.shape == (700, 300, 3)
    assert values.dtype == np.float32
    assert abs(values.mean() - 1) < 0.02
    assert abs(values.std() - 2) < 0.02
    assert np.array_equal(values, normal(3, std=2.0, mean=1.0))
    assert not np.array_equal(values, normal(4, std=2.0, mean=1.0))
    tails = np.abs(normal(8, std=1.0, mean=0.0))
    for reach, share in ((1, 0.3173), (2, 0.0455), (3, 0.0027)):
        assert abs((tails > reach).mean() / share - 1) < 0.2
    spread = chance.uniform(3, (500,), low=-2, high=5)
    assert spread.min() >= -2
    assert spread.max() <= 5
    assert abs(spread.mean() - 1.5) < 0.4
    assert len(chance.random_bytes(1, 13)) == 13
    assert len(np.unique(chance.random_words(1, 5000))) > 4500


@pytest.mark.parametrize(
    ("op", "drawn"),
    [
        (blur.GaussianBlur(), (2.0,)),
        (blur.BoxBlur(), (2,)),
        (blur.MedianBlur(), (2,)),
        (blur.MotionBlur(), (9, 0.4)),
        (blur.Defocus(), (3.0,)),
        (blur.AdvancedBlur(), (1.5, 0.6, 0.5, 1.0, 3)),
        (blur.ZoomBlur(), (1.3,)),
        (blur.GlassBlur(), (2, 3)),
        (quality.Downscale(), (0.4,)),
    ],
)
def test_blur_keeps_the_brightness_and_loses_detail(op: Op, drawn: tuple[float, ...]) -> None:
    image = np.random.default_rng(2).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    blurred = op.apply(image, drawn, TARGET)
    assert abs(blurred.mean() - image.mean()) < 3
    assert blurred.std() < 0.8 * image.std()
    flat = np.full((20, 20, 3), 90, dtype=np.uint8)
    assert difference(op.apply(flat, drawn, TARGET), flat) <= 1


def test_motion_blur_is_along_its_line() -> None:
    dot = np.zeros((21, 21, 3), dtype=np.uint8)
    dot[10, 10] = 255
    line = blur.MotionBlur().apply(dot, (9, 0.0), TARGET)[:, :, 0]
    assert (line[10] > 0).sum() >= 9
    assert line[:10].max() == line[11:].max() == 0


def test_sharper_is_the_opposite_of_softer() -> None:
    image = photo()
    edges = cv2.Laplacian(image, cv2.CV_32F).std()
    for op, drawn in ((quality.Sharpen(), (0.4,)), (quality.UnsharpMask(), (1.0, 1.0)), (quality.Sharpness(), (1.8,))):
        assert cv2.Laplacian(op.apply(image, drawn, TARGET), cv2.CV_32F).std() > edges


def test_compression_loses_more_at_lower_quality() -> None:
    image = np.random.default_rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for op in (quality.JpegCompression(), quality.WebPCompression()):
        loss = [np.abs(op.apply(image, (q,), TARGET).astype(int) - image).mean() for q in (95, 50, 10)]
        assert loss[0] < loss[1] < loss[2]
    red = np.full((16, 16, 3), (200, 20, 20), dtype=np.uint8)
    assert quality.JpegCompression().apply(red, (90,), TARGET)[8, 8].argmax() == 0


def test_thicker_and_thinner() -> None:
    dot = np.zeros((9, 9, 3), dtype=np.uint8)
    dot[4, 4] = 255
    assert (quality.Morphological().apply(dot, (1, 1), TARGET)[:, :, 0] == 255).sum() == 9
    assert quality.Morphological().apply(dot, (1, 0), TARGET).max() == 0


def test_weather() -> None:
    grey = np.full((60, 80, 3), 100, dtype=np.uint8)
    assert weather.RandomFog().apply(grey, (0.5, 3, 1), TARGET).mean() > 140
    assert weather.RandomShadow().apply(grey, (0.5, 0, 0, 1, 0, 1, 1, 0, 1, 0, 0.5), TARGET)[30, 40, 0] == 50
    wet = weather.Spatter().apply(grey, (0.2, 0.8, 1, 4), TARGET)
    assert 0.1 < (wet != grey).any(axis=2).mean() < 0.3
    assert weather.RandomSunFlare().apply(grey, (0.4, 5), TARGET).mean() > 101
    dark = grey // 3
    assert weather.RandomSnow(amount=(0.3, 0.3)).apply(dark, (5,), TARGET).mean() > dark.mean()


def test_superpixels_are_flat_and_follow_edges() -> None:
    halves = np.zeros((60, 90, 3), dtype=np.uint8)
    halves[:, 37:] = (200, 120, 40)
    grainy = noise.GaussianNoise().apply(halves, (0.03, 1), TARGET)
    patched = patches.Superpixels(patches=24).apply(grainy, (1.0, 3), TARGET)
    colours = np.unique(patched.reshape(-1, 3), axis=0)
    assert 4 <= len(colours) <= 30
    assert np.abs(patched[:, :37].astype(int) - halves[:, :37]).mean() < 8  # no patch lies on both sides of the edge
    assert np.abs(patched[:, 37:].astype(int) - halves[:, 37:]).mean() < 8
    some = patches.Superpixels(patches=24).apply(grainy, (0.5, 3), TARGET)
    same = (some == grainy).all(axis=2).mean()
    assert 0.2 < same < 0.8
    assert np.array_equal(patches.Superpixels().apply(grainy, (0.0, 3), TARGET), grainy)


def test_pictures_that_are_too_long_for_opencv_stay_as_they_are() -> None:
    strip = np.full((2, 40_000, 3), 90, dtype=np.uint8)
    box = np.array([[5, 0, 50, 2]], dtype=np.float32)
    bent = grids.ElasticTransform()
    assert np.array_equal(bent.apply(strip, (4, 0.1, 3), TARGET), strip)
    assert np.array_equal(bent.move_boxes(box, (4, 0.1, 3), height=2, width=40_000, target=TARGET), box)
    wide = grids.GridDistortion()
    assert np.array_equal(wide.move_boxes(box, (0.9, 1.1) * 5, height=2, width=40_000, target=TARGET), box)
    assert np.array_equal(wide.apply_mask(strip[:, :, 0], (0.9, 1.1) * 5, TARGET), strip[:, :, 0])
    assert np.array_equal(quality.WebPCompression().apply(strip, (50,), TARGET), strip)
    assert blur.GlassBlur().apply(strip, (2, 1), TARGET).shape == strip.shape


@pytest.mark.parametrize("side", [300, 440, 700, 1300])
def test_a_large_picture_is_scaled_as_pillow_does_it(side: int) -> None:
    image = noise.GaussianNoise().apply(photo(side, side + 50), (0.05, 3), TARGET)
    ours = crops.RandomResizedCrop().apply(image, (0, 50, side, side), Target(224)).astype(float)
    plain = cv2.resize(image[:, 50:], (224, 224)).astype(float)
    pillow = np.asarray(Image.fromarray(image[:, 50:]).resize((224, 224), Image.Resampling.BILINEAR), dtype=float)
    assert np.abs(ours - pillow).mean() < 4
    assert side < 400 or np.abs(ours - pillow).mean() < 0.75 * np.abs(plain - pillow).mean()
    stripes = np.zeros((side, side + 50, 3), dtype=np.uint8)
    stripes[::2] = 200
    if side > 400:  # no pixel is skipped
        assert difference(crops.RandomResizedCrop().apply(stripes, (0, 0, side, side), Target(224)), 100) <= 1
