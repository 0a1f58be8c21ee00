"""A contact sheet: pictures in rows, with a line of text and their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from autodl_ray.images import ImageArray

__all__ = ["Tile", "contact_sheet"]

_LINE = 16
_GAP = 6
_INK, _PAPER = (30, 30, 30), (255, 255, 255)
_COLOURS = ((230, 60, 40), (40, 120, 220), (40, 160, 80), (240, 150, 20), (150, 70, 190), (0, 160, 170))


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        caption: Below it, one or more lines; cut where they are too long.
        boxes: (N, 4) pascal_voc pixels of the picture, or None.
        labels: One text a box, drawn at its corner; or none.
    """

    image: ImageArray = field(repr=False)
    caption: str = ""
    boxes: npt.NDArray[np.floating] | None = field(default=None, repr=False)
    labels: tuple[str, ...] = ()


def contact_sheet(tiles: Sequence[Tile], *, columns: int, side: int) -> Image.Image:
    """Draw pictures in a grid, each scaled to fit a square.

    Args:
        tiles: In reading order.
        columns: Pictures a row.
        side: Of the squares, in pixels. Tiny pictures are enlarged with sharp pixels.

    Returns:
        An RGB picture; one empty square where there are no tiles.
    """
    columns = max(1, min(columns, len(tiles)))
    rows = max(1, -(-len(tiles) // columns))
    text_height = _LINE * max((tile.caption.count("\n") + 1 for tile in tiles), default=1)
    high = side + text_height + _GAP
    sheet = Image.new("RGB", (columns * (side + _GAP) + _GAP, rows * high + _GAP), _PAPER)
    font = ImageFont.load_default(size=11)
    for i, tile in enumerate(tiles):
        left = _GAP + (i % columns) * (side + _GAP)
        top = _GAP + (i // columns) * high
        picture, scale = _scaled(tile.image, side)
        _draw_boxes(ImageDraw.Draw(picture), tile, scale, font)
        sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
        draw = ImageDraw.Draw(sheet)
        for number, line in enumerate(tile.caption.split("\n")):
            at = (left, top + side + 1 + number * _LINE)
            draw.text(at, _fitting(draw, line, font, side), fill=_INK, font=font)
    return sheet


def _scaled(image: ImageArray, side: int) -> tuple[Image.Image, float]:
    scale = side / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    how = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BILINEAR
    return Image.fromarray(image).resize(size, how), scale


def _draw_boxes(
    draw: ImageDraw.ImageDraw, tile: Tile, scale: float, font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> None:
    for i, box in enumerate(() if tile.boxes is None else tile.boxes):
        label = tile.labels[i] if i < len(tile.labels) else ""
        colour = _COLOURS[sum(label.encode()) % len(_COLOURS)]
        x1, y1, x2, y2 = (float(v) * scale for v in box)
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=2)
        if label:
            draw.text((x1 + 3, y1 + 1), label, fill=colour, font=font)


def _fitting(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int
) -> str:
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
